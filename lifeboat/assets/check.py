"""The course of one check: batches out, results in their order, counted, saved and reported."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from datetime import UTC, datetime

from lifeboat.assets.findings import REPORTED_FINDINGS_MAX, AssetProgress, AssetReport, Finding, FindingKind
from lifeboat.assets.pool import BatchResult, ReaderPool, batches
from lifeboat.assets.records import AssetRecord
from lifeboat.assets.resume import CheckState, ResumeFile

# Batches end in their order, so one huge file holds up the rest: that many may wait behind it.
_BATCHES_IN_FLIGHT_MAX = 512
_PROGRESS_SECONDS = 0.5
_SAVE_SECONDS = 3.0
_RECHECKS_MAX = 3

OnProgress = Callable[[AssetProgress], None]
OnFinding = Callable[[Finding], None]
CurrentRecords = Callable[[Sequence[str]], dict[str, AssetRecord]]


class Check:
    """One check: hands out batches, takes their results in order, counts, saves and reports."""

    def __init__(
        self,
        pool: ReaderPool,
        resume: ResumeFile | None,
        current: CurrentRecords | None,
        on_progress: OnProgress | None,
        on_finding: OnFinding | None,
    ) -> None:
        self._pool, self._resume, self._current = pool, resume, current
        self._on_progress, self._on_finding = on_progress, on_finding
        self._state = resume.state if resume else CheckState.new("")
        self._bytes_before, self._elapsed_before = self._state.bytes_checked, self._state.elapsed_seconds
        self._began = self._saved_at = self._progress_at = time.monotonic()
        self._reported: list[Finding] = []
        self._unsaved: list[Finding] = []

    def replay(self) -> None:
        """Give the findings of the interrupted run to the callback, which may not have stored them."""
        for finding in self._resume.findings() if self._resume else ():
            self._report(finding)

    def run(self, records: Iterable[AssetRecord]) -> None:
        """Examine all records."""
        pending: deque[Future[BatchResult]] = deque()
        for batch in batches(records):
            pending.append(self._pool.submit(batch))
            while pending and (pending[0].done() or len(pending) >= _BATCHES_IN_FLIGHT_MAX):
                self._take(pending.popleft())
        while pending:
            self._take(pending.popleft())

    def save(self) -> None:
        """Make what is done durable."""
        if self._resume is not None:
            state = replace(self._state, elapsed_seconds=self._elapsed())
            self._state = self._resume.save(state, self._unsaved)
        self._unsaved.clear()
        self._saved_at = time.monotonic()

    def finish(self) -> AssetReport:
        """The report; the resume file is discarded."""
        self._show_progress()
        state = self._state
        if self._resume is not None:
            self._resume.discard()
        return AssetReport(
            started_at=state.started_at,
            completed_at=datetime.now(UTC),
            duration_seconds=self._elapsed(),
            checked=state.checked,
            bytes_checked=state.bytes_checked,
            without_checksum=state.without_checksum,
            missing=state.missing,
            corrupt=state.corrupt,
            unreadable=state.unreadable,
            findings=tuple(self._reported),
            resumed=self._resume is not None and self._resume.resumed,
        )

    def _take(self, future: "Future[BatchResult]") -> None:
        while not wait([future], timeout=_PROGRESS_SECONDS).done:
            self._tick()
        result = future.result()
        findings, extra_bytes = self._confirm(result.findings)
        for finding in findings:
            self._report(finding)
        if self._resume is not None:
            self._unsaved += findings
        count = {kind: sum(finding.kind is kind for finding in findings) for kind in FindingKind}
        state = self._state
        self._state = replace(
            state,
            position=result.last_id,
            checked=state.checked + result.checked,
            bytes_checked=state.bytes_checked + result.bytes_checked + extra_bytes,
            without_checksum=state.without_checksum + result.without_checksum,
            missing=state.missing + count[FindingKind.MISSING],
            corrupt=state.corrupt + count[FindingKind.CORRUPT],
            unreadable=state.unreadable + count[FindingKind.UNREADABLE],
        )
        self._tick()

    def _confirm(self, findings: list[Finding]) -> tuple[list[Finding], int]:
        """The findings that hold against the records as they are now, and the bytes read to tell."""
        if self._current is None or not findings:
            return findings, 0
        before = self._pool.reader.bytes_read
        for _ in range(_RECHECKS_MAX):
            records = self._current([finding.asset_id for finding in findings])
            known = [(finding, records.get(finding.asset_id)) for finding in findings]
            changed = False
            findings = []
            for finding, record in known:
                if record is None:
                    continue
                if _same(finding, record):
                    findings.append(finding)
                    continue
                changed = True
                if (again := self._pool.reader.examine(record)) is not None:
                    findings.append(again)
            if not changed:
                break
        return findings, self._pool.reader.bytes_read - before

    def _report(self, finding: Finding) -> None:
        if len(self._reported) < REPORTED_FINDINGS_MAX:
            self._reported.append(finding)
        if self._on_finding is not None:
            self._on_finding(finding)

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._progress_at >= _PROGRESS_SECONDS:
            self._show_progress()
        if self._resume is not None and now - self._saved_at >= _SAVE_SECONDS:
            self.save()

    def _show_progress(self) -> None:
        self._progress_at = time.monotonic()
        if self._on_progress is not None:
            state = self._state
            found = state.missing + state.corrupt + state.unreadable
            read = self._bytes_before + self._pool.bytes_read()
            self._on_progress(AssetProgress(state.checked, read, found, self._elapsed()))

    def _elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._began


def _same(finding: Finding, record: AssetRecord) -> bool:
    seen = (finding.path, finding.expected_size_bytes, finding.expected_sha256)
    return seen == (record.path, record.size_bytes, record.sha256)
