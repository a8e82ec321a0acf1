"""Taking, choosing, pinning and expiring backups."""
