"""Counts by minute: what is new since the last write to the catalog, and the current minute as a whole."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lifeboat.catalog.wal_values import ActivityRow, CommitsRow, RelationFile
from lifeboat.wal.activity.records import to_datetime
from lifeboat.wal.activity.transactions import Counts

KEEP_MINUTES_FOR = timedelta(hours=48)
_MINUTE_TEXT_BYTES = len("2026-11-22 10:00")


class Buckets:
    """Committed changes by the minute of `latest`, the latest end of any transaction so far.

    Recovery stops at the first end of a transaction that is later than its target, whatever follows (xlogrecovery.c,
    recoveryStopsBefore). Clocks and sessions jitter; by the latest time so far, a bucket is what such a stop divides.
    Minutes before `first_minute` are those of another timeline and not new.
    """

    def __init__(self, first_minute: bytes = b"") -> None:
        self.first_minute = first_minute[:_MINUTE_TEXT_BYTES]
        self.latest = b""
        self.minute = b""
        self._rows: dict[tuple[bytes, RelationFile], list[int]] = {}
        self._commits: dict[bytes, list[Any]] = {}
        self._so_far: Counts = {}
        self._commits_so_far = 0

    def tell_time(self, time: bytes) -> None:
        """A transaction ended, committed or not."""
        if time > self.latest:
            self.latest = time
            if not time.startswith(self.minute) or not self.minute:
                self.minute = time[:_MINUTE_TEXT_BYTES]
                self._so_far, self._commits_so_far = {}, 0

    def add(self, counts: Counts, time: bytes) -> None:
        """A transaction committed that changed something."""
        self.add_many(counts, 1, time, time)

    def add_many(self, counts: Counts, commits: int, first: bytes, last: bytes) -> None:
        """Some transactions of the current minute committed, the first and the last of them at these times."""
        minute, rows, so_far = self.minute, self._rows, self._so_far
        is_new = minute >= self.first_minute
        for file, (inserted, updated, deleted) in counts.items():
            buckets = [so_far.setdefault(file, [0, 0, 0])]
            if is_new:
                buckets.append(rows.setdefault((minute, file), [0, 0, 0]))
            for bucket in buckets:
                bucket[0] += inserted
                bucket[1] += updated
                bucket[2] += deleted
        self._commits_so_far += commits
        if not is_new:
            return
        found = self._commits.get(minute)
        if found is None:
            self._commits[minute] = [commits, first, last]
        else:
            found[0] += commits
            found[1], found[2] = min(found[1], first), max(found[2], last)

    def inherit(self) -> None:
        """Count the current minute so far as new: it is of the timeline that this one goes on from."""
        if (self._so_far or self._commits_so_far) and self.minute >= self.first_minute:
            self._rows.update({(self.minute, file): list(counts) for file, counts in self._so_far.items()})
            self._commits[self.minute] = [self._commits_so_far, self.latest, self.latest]

    def new_activity(self) -> tuple[ActivityRow, ...]:
        """What was counted since `written`."""
        return tuple(
            ActivityRow(to_datetime(minute), file, *counts)
            for (minute, file), counts in self._rows.items()
            if any(counts)
        )

    def new_commits(self) -> tuple[CommitsRow, ...]:
        """The transactions since `written`."""
        return tuple(
            CommitsRow(to_datetime(minute), count, to_datetime(first), to_datetime(last))
            for minute, (count, first, last) in self._commits.items()
        )

    def written(self) -> None:
        """What was new is in the catalog."""
        self._rows, self._commits = {}, {}

    def in_bucket(self, bucket: bytes) -> tuple[Counts, int]:
        """Rows and transactions, since `load`, of all minutes whose text begins with `bucket`."""
        if self.minute == bucket:
            return {file: list(counts) for file, counts in self._so_far.items()}, self._commits_so_far
        counts: Counts = {}
        for (minute, file), (inserted, updated, deleted) in self._rows.items():
            if minute.startswith(bucket):
                mine = counts.setdefault(file, [0, 0, 0])
                mine[0], mine[1], mine[2] = mine[0] + inserted, mine[1] + updated, mine[2] + deleted
        return counts, sum(found[0] for minute, found in self._commits.items() if minute.startswith(bucket))

    def to_json(self) -> dict[str, Any]:
        """The current minute as a whole, as JSON."""
        rows = [[*file, *counts] for file, counts in self._so_far.items()]
        return {
            "minute": self.minute.decode(),
            "latest": self.latest.decode(),
            "rows": rows,
            "commits": self._commits_so_far,
        }

    def load(self, stored: Mapping[str, Any]) -> None:
        """Go on from what `to_json` gave."""
        self.minute, self.latest = stored.get("minute", "").encode(), stored.get("latest", "").encode()
        self._so_far = {(row[0], row[1]): list(row[2:5]) for row in stored.get("rows", ())}
        self._commits_so_far = int(stored.get("commits", 0))
