"""Asset records, streamed from the platform's database in bounded memory, in an order that can be resumed."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from lifeboat.errors import PermanentError
from lifeboat.postgres.connections import ConnectionInfo, SourceUnavailable, connect, connection_error

_FETCH_ROWS = 2000
_RECONNECTS_MAX = 3
_SAMPLE_SCALE = 2**32
_COLUMNS = "asset.id::text, asset.kind::text, asset.path::text, asset.size_bytes::bigint, asset.sha256::text"


class AssetQueryInvalid(PermanentError):
    """The asset query of the settings fails, or lacks a column that the check needs."""


@dataclass(frozen=True, slots=True)
class AssetRecord:
    """What the database says about one file. Size and checksum are None where it does not know them."""

    id: str
    kind: str
    path: str
    size_bytes: int | None
    sha256: str | None


class AssetSource:
    """The rows of the settings' asset query."""

    def __init__(self, dsn: str | ConnectionInfo, query: str) -> None:
        self._info = ConnectionInfo.parse(dsn)
        # As a subquery, so that we can order and restrict it; the line break ends a trailing comment.
        self._relation = f"({query.strip().rstrip(';')}\n) AS asset"

    def records(self, after: str | None = None) -> Iterator[AssetRecord]:
        """All records behind the id `after`, in the order of their ids.

        A cursor WITH HOLD: the server spools the result and ends the transaction at once, so that a check of
        hours holds back no vacuum. A lost connection is opened again. Raises AssetQueryInvalid,
        SourceUnavailable.
        """
        failures = 0
        while True:
            try:
                for record in self._stream(after):
                    after, failures = record.id, 0
                    yield record
            except SourceUnavailable:
                failures += 1
                if failures > _RECONNECTS_MAX:
                    raise
                time.sleep(failures)
            else:
                return

    def current(self, ids: Sequence[str]) -> dict[str, AssetRecord]:
        """What the database says now about these ids; one that is gone is left out."""
        if not ids:
            return {}
        places = ", ".join(["%s"] * len(ids))
        rows = self._fetch(_COLUMNS, f"WHERE asset.id IN ({places})", ids)
        return {record.id: record for record in map(_record, rows)}

    def totals(self) -> tuple[int, int]:
        """How many records there are, and the bytes that they should have in all."""
        rows = self._fetch("count(*), coalesce(sum(asset.size_bytes), 0)::bigint")
        return int(rows[0][0]), int(rows[0][1])

    def _stream(self, after: str | None) -> Iterator[AssetRecord]:
        where = "" if after is None else "WHERE asset.id > %s "
        query = self._statement(_COLUMNS, f"{where}ORDER BY asset.id", () if after is None else (after,))
        with connect(self._info, application_name="lifeboat assets") as connection:
            try:
                with connection.cursor("lifeboat_assets", withhold=True) as cursor:
                    cursor.execute(*query)
                    connection.commit()
                    while rows := cursor.fetchmany(_FETCH_ROWS):
                        connection.commit()
                        yield from map(_record, rows)
            except psycopg.Error as error:
                raise _explain(error, self._info) from error

    def _fetch(self, columns: str, rest: str = "", values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        with connect(self._info, application_name="lifeboat assets", autocommit=True) as connection:
            try:
                return connection.execute(*self._statement(columns, rest, values)).fetchall()
            except psycopg.Error as error:
                raise _explain(error, self._info) from error

    def _statement(self, columns: str, rest: str, values: Sequence[str]) -> tuple[str, Sequence[str] | None]:
        # psycopg looks for placeholders only where there are values: only then is a `%` of the query doubled.
        relation = self._relation.replace("%", "%%") if values else self._relation
        return f"SELECT {columns} FROM {relation} {rest}", values or None  # noqa: S608 - the settings' own query


def sampled(records: Iterable[AssetRecord], fraction: float, seed: str) -> Iterator[AssetRecord]:
    """The records that one sample takes: about `fraction` of them, always the same ones for one `seed`."""
    limit, key = fraction * _SAMPLE_SCALE, hashlib.sha256(seed.encode()).digest()
    for record in records:
        digest = hashlib.blake2b(record.id.encode(), key=key, digest_size=4).digest()
        if int.from_bytes(digest, "big") < limit:
            yield record


def _record(row: tuple[Any, ...]) -> AssetRecord:
    identity, kind, path, size_bytes, sha256 = row
    if identity is None:
        raise AssetQueryInvalid(
            "the asset query gave a row without an id", hint="Every row needs an id that no other row has."
        )
    # A row without a path is one bad file, not a reason to stop: an empty path is reported as unreadable.
    checksum = None if sha256 is None else sha256.removeprefix("\\x").strip().lower()
    return AssetRecord(identity, kind or "", path or "", size_bytes, checksum)


def _explain(error: psycopg.Error, info: ConnectionInfo) -> Exception:
    connection_lost = error.sqlstate is None or error.sqlstate[:2] in {"08", "57"}
    if isinstance(error, psycopg.OperationalError) and connection_lost:
        return connection_error(error, info)
    said = (error.diag.message_primary or str(error)).strip()
    return AssetQueryInvalid(
        f"the asset query failed: {said}",
        hint="`assets.query` gives id, kind, path, size_bytes, sha256; write tables with their schema.",
    )
