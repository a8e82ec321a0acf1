"""The resident process: the heartbeat in the source, and what relations were called when."""
