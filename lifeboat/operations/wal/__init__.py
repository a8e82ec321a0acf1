"""The WAL archive: its setup, status, scrub, health, receiver and activity index."""
