"""Physical backups and WAL in a repository of pgBackRest, which owns what is in it."""
