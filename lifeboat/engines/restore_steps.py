"""Steps that the restore section of a manifest has whichever engine took the backup."""

from lifeboat.storage.manifest import RestoreStep


def start_cut_off() -> RestoreStep:
    """Start the restored server where nobody but its own account reaches it, and wait until it has recovered."""
    return RestoreStep(
        title="Start it cut off and wait until it has recovered",
        commands=[
            '[ -f "$TARGET/postgresql.conf" ] || : > "$TARGET/postgresql.conf"',
            '[ -f "$TARGET/pg_hba.conf" ] || echo "local all all peer" > "$TARGET/pg_hba.conf"',
            '[ -f "$TARGET/pg_ident.conf" ] || : > "$TARGET/pg_ident.conf"',
            'pg_ctl -D "$TARGET" -l "$TARGET/restore.log" -t 3600 -w start '
            "-o \"-c archive_mode=off -c listen_addresses='' -c unix_socket_directories='$SOCKET' -c port=5432\"",
        ],
    )
