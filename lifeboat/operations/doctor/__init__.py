"""Checks of an installation: one module a part, each result with what to do."""
