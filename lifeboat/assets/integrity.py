"""The asset check: reads every file that the database refers to and reports what is not as it says."""

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from lifeboat.assets.check import Check, CurrentRecords, OnFinding, OnProgress
from lifeboat.assets.findings import AssetReport
from lifeboat.assets.hashing import Throttle
from lifeboat.assets.pool import ReaderPool
from lifeboat.assets.records import AssetRecord, AssetSource, sampled
from lifeboat.assets.resume import ResumeFile
from lifeboat.assets.roots import AssetRoots
from lifeboat.postgres.connections import ConnectionInfo
from lifeboat.settings.assets import AssetSettings

# Beyond that, threads wait for each other's interpreter lock.
_WORKERS_MAX = 32


def check_assets(
    dsn: str | ConnectionInfo,
    settings: AssetSettings,
    resume_path: Path,
    *,
    on_progress: OnProgress | None = None,
    on_finding: OnFinding | None = None,
) -> AssetReport:
    """Check what settings say, and go on where an interrupted check of the same scope stopped.

    Raises AssetRootMissing, AssetQueryInvalid, SourceUnavailable, CheckRunning.
    """
    if settings.query is None:
        raise ValueError("no asset query is set")
    roots = AssetRoots(settings.roots, mount=settings.mount)
    source = AssetSource(dsn, settings.query)
    where = (ConnectionInfo.parse(dsn).redacted(), [str(root) for root in settings.roots])
    scope = repr((settings.query, where, settings.sample_fraction))
    with ResumeFile(
        resume_path,
        scope=hashlib.sha256(scope.encode()).hexdigest(),
        max_age=timedelta(hours=settings.resume_hours) if settings.resume else timedelta(0),
    ) as resume:
        records = source.records(resume.position)
        if settings.sample_fraction < 1:
            records = sampled(records, settings.sample_fraction, resume.state.token)
        report = verify_assets(
            records,
            roots,
            workers=settings.workers,
            resume=resume,
            current=source.current,
            bytes_per_second=settings.bytes_per_second,
            nice=settings.nice,
            on_progress=on_progress,
            on_finding=on_finding,
        )
    return replace(report, sample_fraction=settings.sample_fraction)


def default_workers() -> int:
    """Two threads per core: as fast as one while the files are cached, and half as fast again from disk (bench)."""
    return min(_WORKERS_MAX, 2 * len(os.sched_getaffinity(0)))


def verify_assets(  # noqa: PLR0913 - one check with its options
    records: Iterable[AssetRecord],
    roots: AssetRoots | Sequence[Path],
    *,
    workers: int | None = None,
    resume: ResumeFile | None = None,
    current: CurrentRecords | None = None,
    bytes_per_second: int | None = None,
    nice: int = 0,
    on_progress: OnProgress | None = None,
    on_finding: OnFinding | None = None,
) -> AssetReport:
    """Read the files of `records` and compare size and SHA-256; a bad file is a finding, never an exception.

    `workers` None means `default_workers()`. With `resume`, `records` begin behind its position, its findings so far
    are given to `on_finding` again, and it is discarded at the end. `current` gives records of ids as they are
    now: what looks wrong is looked at again where its record changed, and dropped where it is gone. Callbacks
    run in the calling thread. Raises AssetRootMissing, and what `records` and callbacks raise; the progress is
    saved first.
    """
    known_roots = roots if isinstance(roots, AssetRoots) else AssetRoots(roots)
    stop = threading.Event()
    threads = workers or default_workers()
    pool = ReaderPool(known_roots, Throttle(bytes_per_second, stop), threads, nice)
    check = Check(pool, resume, current, on_progress, on_finding)
    try:
        check.replay()
        check.run(records)
    except BaseException:
        stop.set()
        pool.close()
        with suppress(OSError):
            check.save()
        raise
    pool.close()
    return check.finish()
