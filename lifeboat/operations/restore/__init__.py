"""Restores, exploring a moment and rescuing a table: planning, the place, the run, the proof of the landing."""
