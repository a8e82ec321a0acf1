"""Threads that read batches of files side by side."""

import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from lifeboat.assets.findings import Finding
from lifeboat.assets.hashing import FileReader, Throttle
from lifeboat.assets.records import AssetRecord
from lifeboat.assets.roots import AssetRoots

# Small enough to spread evenly, large enough that handing a batch over costs nothing beside reading it.
_BATCH_RECORDS = 64
_BATCH_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one batch came to; `bytes_checked` were read for it."""

    last_id: str
    checked: int
    bytes_checked: int
    without_checksum: int
    findings: list[Finding]


class ReaderPool:
    """Threads with a buffer each: reads and hashlib let go of the interpreter lock, so all cores work.

    One thread per core has its turn; those beyond work while others wait for the disk. More at once would only hand
    the interpreter lock back and forth: a fifth of the speed, with everything cached (bench).
    """

    def __init__(self, roots: AssetRoots, throttle: Throttle, workers: int, nice: int) -> None:
        self._roots, self._throttle, self._nice = roots, throttle, nice
        self._turns = threading.Semaphore(len(os.sched_getaffinity(0)))
        self._local = threading.local()
        self._readers: list[FileReader] = []
        self._executor = ThreadPoolExecutor(workers, "assets", initializer=self._prepare)
        self.reader = FileReader(roots, throttle)

    def submit(self, batch: list[AssetRecord]) -> "Future[BatchResult]":
        """Have a batch examined."""
        return self._executor.submit(self._examine, batch)

    def bytes_read(self) -> int:
        """Bytes read so far by all threads, in unfinished files too."""
        return self.reader.bytes_read + sum(reader.bytes_read for reader in self._readers)

    def close(self) -> None:
        """End the threads; batches that no thread has begun are dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _prepare(self) -> None:
        if self._nice:
            # On Linux the priority is the thread's own.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        self._local.reader = FileReader(self._roots, self._throttle, self._turns)
        self._readers.append(self._local.reader)

    def _examine(self, batch: list[AssetRecord]) -> BatchResult:
        reader: FileReader = self._local.reader
        before = reader.bytes_read
        with self._turns:
            findings = [finding for record in batch if (finding := reader.examine(record)) is not None]
        without = sum(record.sha256 is None for record in batch)
        return BatchResult(batch[-1].id, len(batch), reader.bytes_read - before, without, findings)


def batches(records: Iterable[AssetRecord]) -> Iterator[list[AssetRecord]]:
    """The records in portions for one thread each."""
    batch: list[AssetRecord] = []
    size_bytes = 0
    for record in records:
        batch.append(record)
        size_bytes += record.size_bytes or 0
        if len(batch) >= _BATCH_RECORDS or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
