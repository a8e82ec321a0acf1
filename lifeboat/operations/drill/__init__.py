"""Restore drills and their proof of equality."""
