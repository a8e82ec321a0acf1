"""The demo's second half: an accident, what can be had, what a restore would undo, the restore, and its proof."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from console.cli.demo_evidence import Undone, lost_rows
from console.cli.demo_report import DemoFailed, Step
from deployments.triggering import TriggeredRun
from lifeboat.agent.heartbeat import newest_heartbeat
from lifeboat.demo.accident import (
    DROPPED,
    EMPTIED,
    EMPTIED_TOO,
    Accident,
    TableContent,
    bring_back,
    cause_accident,
    content_of,
    edit_a_character,
)
from lifeboat.operations.installation import Installation
from lifeboat.operations.points.restore_points import PointsOrder, list_restore_points
from lifeboat.operations.preview.quick import PreviewOrder, preview_restore
from lifeboat.postgres import postmaster
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect, single_value
from lifeboat.postgres.folders import socket_dir_for
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, time_text
from lifeboat.settings.own_command import own_command
from lifeboat.wal.coverage import wait_for_segment
from tasks.figures import count_text

_SECOND = timedelta(seconds=1)
_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 60.0
_SPARE_PORT = 5499
_BUSY = "brought up to date by another run"
_TRIES_MAX = 3
_TOLD = ("last_commit_at", "next_commit_at", "heartbeat_at")

RunFlow = Callable[..., TriggeredRun]
"""Called as Conductor.run_flow: the step, the deployment's name, its parameters."""


@dataclass
class Recovery:
    """The steps, in the order of a bad day; each finds in here what those before it left."""

    installation: Installation
    home: Path
    run_flow: RunFlow
    before: Mapping[str, TableContent] = field(default_factory=dict)
    heartbeats: list[tuple[datetime, datetime]] = field(default_factory=list)
    happened: Accident | None = None

    @property
    def place(self) -> Path:
        """The data directory of the restored cluster, which stays for whoever wants to look."""
        return self.home / "restored"

    @property
    def target(self) -> datetime:
        """The second before: the last whole one at which nothing of the accident had begun."""
        return self._accident.began_at.replace(microsecond=0)

    @property
    def _accident(self) -> Accident:
        if self.happened is None:
            raise DemoFailed("there has been no accident")
        return self.happened

    def accident(self, step: Step) -> None:
        """One last good commit; then, in a later second, somebody deletes and drops. It ends when WAL has arrived."""
        self._clear_place()
        source = self.installation.source
        edited_at = edit_a_character(source)
        self.before = content_of(source)
        self._wait_until("the agent knows the table's name", self._is_observed)
        self._wait_until("a heartbeat", lambda: self._beats_after(edited_at.replace(microsecond=0) + _SECOND))
        self.happened = cause_accident(source, self.home / "studio")
        wal, accident = self.installation.settings.wal, self.happened
        wait_for_segment(
            self.installation.destination(wal.destination).path,
            self.installation.settings.platform.cluster,
            timeline=accident.timeline,
            lsn=accident.end_lsn,
            timeout_seconds=wal.segment_timeout_seconds,
        )
        with closing(connect(source, application_name="lifeboat demo", autocommit=True)) as session:
            left = single_value(session, "SELECT count(*) FROM studio.segments")
            dropped = single_value(session, "SELECT to_regclass('studio.characters') IS NULL")
        step.evidence = (
            f"at {accident.began_at:%H:%M:%S.%f}: DELETE of {self.before[EMPTIED].rows:,} segments, "
            f"DROP TABLE of {count_text(self.before[DROPPED].rows, 'character')}; last good commit by "
            f"{edited_at:%H:%M:%S.%f}"
        )
        step.passed = dropped and left == 0 and edited_at < self.target <= accident.began_at

    def restore_points(self, step: Step) -> None:
        """The second before has to be among what can be had, and no WAL may be missing."""
        found = list_restore_points(self.installation, PointsOrder())
        reach = found.current
        windows = reach.windows if reach else ()
        seconds = [window.seconds for window in windows if window.seconds]
        step.passed = not found.found_faults and any(first <= self.target <= last for first, last in seconds)
        if reach is None or not seconds or not step.passed:
            step.fail(f"{self.target} cannot be had: {reach or 'there is no timeline'}")
            return
        step.evidence = (
            f"timeline {reach.timeline}: every second from {seconds[0][0]:%H:%M:%S} to {seconds[-1][1]:%H:%M:%S}, "
            f"no gap; {count_text(len(found.marks), 'event')} marked"
        )

    def preview(self, step: Step) -> None:
        """The flow says what a restore undoes; it has to name both tables with the rows that they had."""
        published = self._publish_preview(step)
        target = RecoveryTarget(TargetKind.TIME, at=self.target)
        preview = preview_restore(self.installation, PreviewOrder(target, update_index=False))
        found = Undone.of(preview)
        faults = [f"the report does not name {name}" for name in (DROPPED, EMPTIED) if name not in published]
        faults += found.faults(self.before)
        step.size_bytes = preview.size.backups_bytes + preview.size.wal_stored_bytes
        step.evidence = (
            f"undoes DROP of {DROPPED} (about {found.dropped_rows} rows), DELETE of {found.deleted[EMPTIED]:,} "
            f"{_short(EMPTIED)} and {found.deleted[EMPTIED_TOO]:,} {_short(EMPTIED_TOO)}; "
            f"{count_text(preview.transactions.count if preview.transactions else 0, 'transaction')} lost"
        )
        if faults:
            # WAL that arrives meanwhile is a doubt too, and no fault while the figures are right.
            step.fail("; ".join([*faults, *preview.doubts]))

    def restore(self, step: Step) -> None:
        """To the second before, into a new cluster: it landed there, and has every row that was there."""
        parameters = {"to": f"new:{self.place}", "at": time_text(self.target)}
        run = self.run_flow(step, "restore/restore", parameters)
        report = self._report_of(run)
        step.size_bytes = sum(each.stat().st_size for each in self.place.rglob("*") if each.is_file())
        with self._started() as restored:
            faults = [*self._landing_faults(report), *lost_rows(content_of(restored), self.before)]
            faults += self._heartbeat_faults(restored, report)
        last, following = _moment(report["last_commit_at"]), _moment(report["next_commit_at"])
        step.evidence = (
            f"to {self.target:%H:%M:%S}: last commit {last:%H:%M:%S.%f}, the next one, {following:%H:%M:%S.%f}, not "
            f"replayed; newest heartbeat {_moment(report['heartbeat_at']):%H:%M:%S.%f}; {len(self.before)} tables have "
            f"all rows ({sum(each.rows for each in self.before.values()):,}), contents equal"
        )
        if faults:
            step.fail("; ".join(faults))

    def bring_back(self, step: Step) -> None:
        """What was lost goes from the restored cluster into the live database; then it is as before the accident."""
        installation = self.installation
        dump = installation.settings.state_dir / "demo-studio.sql"
        with self._started() as restored:
            bring_back(installation.tools, restored, installation.source, dump, self.home / "studio")
        faults = lost_rows(content_of(installation.source), self.before)
        step.evidence = "pg_dump of the restored cluster into the live database: every row is back, contents equal"
        step.passed = not faults
        if faults:
            step.fail("; ".join(faults))

    def looks(self, settings: Path) -> list[str]:
        """What the steps left to look at, and how; nothing where there was no accident."""
        if self.happened is None:
            return []
        at, tools = f"{self.target:%Y-%m-%d %H:%M:%S}", self.installation.tools
        lines = [f"that second, read-only, until Ctrl-C: {own_command(settings, 'explore', '--at', at)}"]
        if self.place.is_dir():
            as_user = f"runuser -u {self.installation.run_as} -- " if self.installation.run_as else ""
            start = f"{tools.path('pg_ctl')} -D {self.place} -l {self.place}.log -o '-k /tmp -p {_SPARE_PORT}' start"
            lines += [
                f"the cluster as of {at} UTC, stopped: {self.place}; it archives nothing, and the next demo removes it",
                f"  start it: {as_user}{start}",
                f"  ask it:   {as_user}{tools.path('psql')} -h /tmp -p {_SPARE_PORT} -U postgres studio",
            ]
        return lines

    def _publish_preview(self, step: Step) -> str:
        """The flow's report; asked for again while the scheduled flow `wal-index` has the index in its hands."""
        published, tries = "", 0
        while tries == 0 or (_BUSY in published and tries < _TRIES_MAX):
            run = self.run_flow(step, "restore-preview/restore-preview", {"at": time_text(self.target)})
            published, tries = "\n".join(str(each.data) for each in run.artifacts), tries + 1
        return published

    def _clear_place(self) -> None:
        """Remove what the last demo restored, and its server if somebody has started it."""
        if self.place.exists():
            postmaster.end_servers_in(self.place)
            shutil.rmtree(self.place)

    def _is_observed(self) -> bool:
        names = self.installation.catalog.relations.names(self.installation.settings.platform.cluster)
        return {DROPPED, EMPTIED} <= {each.name for each in names}

    def _beats_after(self, moment: datetime) -> bool:
        """Whether the newest heartbeat is of `moment` or later; what was seen when, by the server's clock, is kept."""
        source = self.installation.source
        with closing(connect(source, application_name="lifeboat demo", autocommit=True)) as session:
            at = newest_heartbeat(session)
            seen_at: datetime = single_value(session, "SELECT pg_catalog.clock_timestamp()")
        if at is not None:
            self.heartbeats.append((at, seen_at))
        return at is not None and at >= moment

    def _wait_until(self, what: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_so():
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what}: not within {_PATIENCE_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def _started(self) -> Iterator[ConnectionInfo]:
        """The restored cluster's own server, on a socket of its own, archiving nothing; stopped at the end."""
        tools, source = self.installation.tools, self.installation.source
        cluster = Cluster(self.place, tools, socket_dir_for(self.place))
        cluster.start()
        try:
            connection = ConnectionInfo.parse(cluster.dsn(source.database or "postgres", source.user or "postgres"))
            with closing(connect(connection, application_name="lifeboat demo", autocommit=True)) as session:
                state = session.execute(
                    "SELECT pg_is_in_recovery(), current_setting('archive_mode'), current_setting('listen_addresses')"
                ).fetchone()
            if state != (False, "off", ""):
                raise DemoFailed(f"the restored server is not what was restored, or not isolated: {state}")
            yield connection
        finally:
            cluster.stop()
            shutil.rmtree(cluster.socket_dir, ignore_errors=True)

    def _report_of(self, run: TriggeredRun) -> Mapping[str, str]:
        rows = [row for row in self.installation.catalog.restores.list_restores().rows if row.flow_run_id == run.id]
        if len(rows) != 1 or rows[0].status != "completed":
            raise DemoFailed(f"the catalog has no completed restore of the flow run {run.name}: {rows}")
        report = rows[0].report_json
        if unknown := [name for name in _TOLD if not report[name]]:
            raise DemoFailed(f"the restore does not tell {', '.join(unknown)}; it landed at {report['landing']}")
        return report

    def _landing_faults(self, report: Mapping[str, str]) -> list[str]:
        last, following = _moment(report["last_commit_at"]), _moment(report["next_commit_at"])
        if last <= self.target < following <= self._accident.ended_at:
            return []
        return [f"landed at {report['landing']}, not before the accident of {time_text(self._accident.began_at)}"]

    def _heartbeat_faults(self, restored: ConnectionInfo, report: Mapping[str, str]) -> list[str]:
        with closing(connect(restored, application_name="lifeboat demo", autocommit=True)) as session:
            found = newest_heartbeat(session)
        # One that was seen by the target was committed by then; it, or a later one, has to be back.
        seen = max((at for at, seen_at in self.heartbeats if seen_at <= self.target), default=None)
        if found is None or found > self.target or (seen is not None and found < seen):
            return [f"the newest heartbeat is {found}; {seen} was committed by {self.target}"]
        told = _moment(report["heartbeat_at"])
        return [] if found == told else [f"the newest heartbeat is {found}, and the report says {told}"]


def _short(table: str) -> str:
    return table.partition(".")[2]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
