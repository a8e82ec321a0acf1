"""Restore points: what can be restored to, named ones, notes."""
