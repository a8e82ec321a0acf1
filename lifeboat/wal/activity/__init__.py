"""The activity index: what committed transactions did to which relations, by minute, read from WAL (DESIGN 7)."""
