"""Commands upon pgBackRest's stanza and repository."""
