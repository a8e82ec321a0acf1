"""Reads one file to its end and says whether it is what the database says."""

import errno
import hashlib
import mmap
import os
import stat
import threading
import time
from dataclasses import dataclass

from lifeboat.assets.findings import Finding, FindingKind
from lifeboat.assets.records import AssetRecord
from lifeboat.assets.roots import AssetRoots, FileAbsent, PathRefused, describe_type

# Larger blocks gain nothing and leave the second-level cache; smaller ones pay for more calls.
_BLOCK_BYTES = 256 * 1024
_READ_AHEAD_BYTES = 1024 * 1024
_ATTEMPTS = 3
# What a network filesystem says when its server is away, rather than when one file is bad.
_ROOT_DOUBTFUL = {errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ENODEV}


class CheckStopped(Exception):
    """The check is being stopped; what this file is remains unknown."""


class Throttle:
    """Shares a number of bytes per second between threads; None lets everything pass."""

    def __init__(self, bytes_per_second: int | None, stop: threading.Event) -> None:
        self._rate, self._stop = bytes_per_second, stop
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def wait(self, size_bytes: int) -> None:
        """Wait until `size_bytes` more may be read; raises CheckStopped when the check stops meanwhile."""
        if self._rate is not None:
            with self._lock:
                now = time.monotonic()
                delay = max(0.0, self._free_at - now)
                self._free_at = max(now, self._free_at) + size_bytes / self._rate
            self._stop.wait(delay)
        if self._stop.is_set():
            raise CheckStopped


@dataclass(frozen=True, slots=True)
class _Reading:
    size_bytes: int
    sha256: str | None
    steady: bool


class FileReader:
    """Examines files with one buffer of its own: one per thread.

    Who calls holds one of `turns`; it is passed on while the reader waits for the disk.
    """

    def __init__(self, roots: AssetRoots, throttle: Throttle, turns: threading.Semaphore | None = None) -> None:
        self._roots, self._throttle, self._turns = roots, throttle, turns
        self._knows_cached = True
        self._buffer = bytearray(_BLOCK_BYTES)
        self._buffers = (self._buffer,)
        self._view = memoryview(self._buffer)
        self.bytes_read = 0

    def examine(self, record: AssetRecord) -> Finding | None:
        """What is wrong with the record's file, or None.

        A bad file is a finding, never an exception. Raises AssetRootMissing when the root itself is away, and
        CheckStopped.
        """
        try:
            return None if self._is_sound(record) else self._look(record)
        except PathRefused as error:
            return _finding(record, FindingKind.UNREADABLE, str(error))
        except OSError as error:
            if error.errno in _ROOT_DOUBTFUL:
                self._roots.require_unchanged()
            return _finding(record, FindingKind.UNREADABLE, (error.strerror or str(error)).lower())

    def _is_sound(self, record: AssetRecord) -> bool:
        """The short way for a file that is right, with as few system calls as there can be.

        Each one gives up the interpreter lock and has to get it back. A regular file is at its end when less comes
        than was asked for. No is not an answer: whatever is not as expected is for `_look` to judge, from the start.
        """
        if not record.sha256 or not record.size_bytes:
            return False
        try:
            descriptor = self._roots.open_quickly(record.path)
        except (OSError, ValueError):
            return False
        before = self.bytes_read
        try:
            if record.size_bytes > _READ_AHEAD_BYTES:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            sound = self._reads_as(record.size_bytes, record.sha256, descriptor)
        except OSError:
            sound = False
        finally:
            os.close(descriptor)
        if not sound:
            self.bytes_read = before
        return sound

    def _reads_as(self, size_bytes: int, sha256: str, descriptor: int) -> bool:
        digest = hashlib.sha256(usedforsecurity=False)
        position, count = 0, _BLOCK_BYTES
        while count == _BLOCK_BYTES and position <= size_bytes:
            self._throttle.wait(min(size_bytes - position, _BLOCK_BYTES))
            # At a position: what cannot be sought, such as a FIFO, is refused, and nothing is taken out of it.
            count = self._fill(descriptor, position)
            digest.update(self._view[:count])
            position += count
            self.bytes_read += count
        return position == size_bytes and digest.hexdigest() == sha256

    def _fill(self, descriptor: int, position: int) -> int:
        """Fill the buffer from that position; when less than a block comes, the file ends there or the disk is bad."""
        count = self._read_cached(descriptor, position)
        # What is cached ends with a page, unless the file ends before that.
        if count == _BLOCK_BYTES or (position + count) % mmap.PAGESIZE:
            return count
        if self._turns is None:
            return count + os.preadv(descriptor, (self._view[count:],), position + count)
        self._turns.release()
        try:
            return count + os.preadv(descriptor, (self._view[count:],), position + count)
        finally:
            self._turns.acquire()

    def _read_cached(self, descriptor: int, position: int) -> int:
        """As much as there is in memory, without waiting for the disk: preadv2(2), RWF_NOWAIT."""
        if self._knows_cached:
            try:
                return os.preadv(descriptor, self._buffers, position, os.RWF_NOWAIT)
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._knows_cached = False
        return 0

    def _look(self, record: AssetRecord) -> Finding | None:
        try:
            return self._compare(record)
        except FileAbsent:
            # A mount that went away and came back makes files look missing: once it is there, look again.
            self._roots.require_unchanged()
        try:
            return self._compare(record)
        except FileAbsent:
            return _finding(record, FindingKind.MISSING, "is not there")

    def _compare(self, record: AssetRecord) -> Finding | None:
        for attempt in range(1, _ATTEMPTS + 1):
            before = self.bytes_read
            descriptor = self._roots.open(record.path)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    return _finding(record, FindingKind.UNREADABLE, f"is {describe_type(found.st_mode)}")
                reading = self._read(descriptor, found, record)
            finally:
                os.close(descriptor)
            if reading is None:
                return None
            if reading.steady or attempt == _ATTEMPTS:
                return _judge(record, reading)
            self.bytes_read = before
        raise AssertionError("unreachable")

    def _read(self, descriptor: int, found: os.stat_result, record: AssetRecord) -> _Reading | None:
        """None when the file is what the record says."""
        expected = record.size_bytes
        if expected is not None and found.st_size != expected:
            return _Reading(found.st_size, None, steady=True)
        digest = self._hash(descriptor, found.st_size)
        if record.sha256 is None or digest == record.sha256:
            return None
        after = os.fstat(descriptor)
        steady = (after.st_size, after.st_mtime_ns) == (found.st_size, found.st_mtime_ns)
        return _Reading(after.st_size, digest, steady)

    def _hash(self, descriptor: int, size_bytes: int) -> str:
        if size_bytes > _READ_AHEAD_BYTES:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        digest = hashlib.sha256(usedforsecurity=False)
        position = 0
        while position < size_bytes:
            self._throttle.wait(min(size_bytes - position, _BLOCK_BYTES))
            # What lies before a bad sector comes as a short read: only the next one says that it is bad.
            count = self._fill(descriptor, position)
            if count == 0:
                break
            digest.update(self._view[:count])
            position += count
            self.bytes_read += count
        return digest.hexdigest()


def _judge(record: AssetRecord, reading: _Reading) -> Finding:
    size_bytes, sha256 = reading.size_bytes, reading.sha256
    if record.size_bytes is not None and size_bytes != record.size_bytes:
        detail = f"has {size_bytes:,} bytes, the database says {record.size_bytes:,}"
    else:
        detail = f"has the SHA-256 {str(sha256)[:12]}…, the database says {str(record.sha256)[:12]}…"
    if not reading.steady:
        detail += "; it was being written"
    return _finding(record, FindingKind.CORRUPT, detail, size_bytes=size_bytes, sha256=sha256)


def _finding(
    record: AssetRecord,
    kind: FindingKind,
    detail: str,
    *,
    size_bytes: int | None = None,
    sha256: str | None = None,
) -> Finding:
    return Finding(
        asset_id=record.id,
        asset_kind=record.kind,
        path=record.path,
        kind=kind,
        detail=detail,
        expected_size_bytes=record.size_bytes,
        actual_size_bytes=size_bytes,
        expected_sha256=record.sha256,
        actual_sha256=sha256,
    )
