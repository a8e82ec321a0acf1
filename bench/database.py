"""A database of a given size for the benchmarks: rows that compress about as well as a platform's do."""

import time

import psycopg

ROW_BYTES = 1000
_BATCH_ROWS = 100_000
_ARCHIVING = (
    "SELECT current_setting('archive_mode') = 'on' AND coalesce(last_archived_wal, '') <"
    " pg_walfile_name(pg_current_wal_lsn() - 16777216) FROM pg_stat_archiver"
)


def fill(dsn: str, size_bytes: int, tables: int = 8) -> None:
    """Create `tables` tables of together about `size_bytes`, half of it random text."""
    rows = size_bytes // ROW_BYTES // tables
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(tables):
            connection.execute(f"DROP TABLE IF EXISTS bench_{number}")
            connection.execute(f"CREATE TABLE bench_{number} (id bigint PRIMARY KEY, name text, body text)")
            for first in range(0, rows, _BATCH_ROWS):
                last = min(first + _BATCH_ROWS, rows)
                connection.execute(
                    f"INSERT INTO bench_{number} SELECT i, 'segment ' || i, "
                    "(SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, 15) j)"
                    " || repeat('scene ', 70) "
                    f"FROM generate_series({first}, {last - 1}) i"
                )
        # Else the first reader writes hint bits, and with checksums WAL for every page: it would pay for the filling.
        connection.execute("VACUUM (FREEZE, ANALYZE)")
        connection.execute("CHECKPOINT")
        while connection.execute(_ARCHIVING).fetchone() == (True,):
            time.sleep(0.5)
