"""The demo's conductor: a small studio, a real Prefect server and worker, the whole loop, and evidence for each step.

What a step did is read back from storage and from the flow run, never from the conductor's own memory.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import tomlkit

from console.cli.demo_recovery import Recovery
from console.cli.demo_report import DemoFailed, Step, print_report
from console.cli.output import notice
from deployments.processes import PortTaken
from deployments.services import RunningServices, running_services
from deployments.triggering import TriggeredRun, trigger
from lifeboat.configuration.reading import decode_archive
from lifeboat.demo.changes import StudioChanges, change_studio
from lifeboat.demo.damage import damage_assets, undo_damage
from lifeboat.demo.files import assets_root
from lifeboat.demo.platform_settings import (
    demo_asset_query,
    demo_configuration_sections,
    demo_validation_queries,
)
from lifeboat.demo.studio import build_studio
from lifeboat.operations.backup.expire import plan_retention
from lifeboat.operations.installation import Installation
from lifeboat.storage.durable import write_durably
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import StoredBackup
from tasks.figures import count_text

_FIRST_PORT = 4200
_PORTS_TRIED = 40
_SETTINGS_NAME = "lifeboat.toml"
_RUN_TIMEOUT_SECONDS = 180.0
_KINDS = 6


def default_demo_dir() -> Path:
    """Where the demo lives: below /var/lib for root, whose server needs a folder it can reach; else in the home."""
    if os.geteuid() == 0:
        return Path("/var/lib/lifeboat-demo")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lifeboat-demo"


def run(directory: Path | None = None) -> int:
    """Play the demo in `directory`, which is kept for the next time; 0 when every step did what it should."""
    home = (directory or default_demo_dir()).absolute()
    began = time.monotonic()
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711)
    with ExitStack() as stack:
        services = _start_services(home, stack)
        installation = services.installation
        conductor = Conductor(installation, home)
        conductor.play(services)
    settings = home / _SETTINGS_NAME
    looks = conductor.recovery.looks(settings)
    print_report(conductor.steps, time.monotonic() - began, settings, installation, looks)
    return 0 if conductor.steps and all(step.passed for step in conductor.steps) else 1


def _start_services(home: Path, stack: ExitStack) -> RunningServices:
    """Start them on the first free port; one that somebody takes before our server has it is passed over."""
    port = _FIRST_PORT
    while True:
        port = _free_port(port)
        installation = Installation.load(_write_settings(home, port))
        try:
            return stack.enter_context(running_services(installation, notice))
        except PortTaken as error:
            notice(f"trying the next port: {error.message}")
            port += 1


@dataclass
class Conductor:
    """Plays the steps in order and stops at the first that fails."""

    installation: Installation
    home: Path
    steps: list[Step] = field(default_factory=list)
    recovery: Recovery = field(init=False)

    def __post_init__(self) -> None:
        self.recovery = Recovery(self.installation, self.home, self.run_flow)

    def play(self, services: RunningServices) -> None:
        """All steps; a failed one is in the report and ends the play."""
        try:
            self._step("seed studio", self._seed)
            self._step("first full backup", self._full_backup)
            full = self._step("full backup", self._full_backup)
            changes = self._step("change studio", self._change)
            services.check()
            incremental = self._step("incremental backup", lambda step: self._incremental(step, full, changes))
            self._step("config export", self._config_export)
            self._step("test restore", lambda step: self._test_restore(step, incremental))
            self._step("asset verification", self._verify_assets)
            self._step("retention", self._retention)
            services.check()
            self._recover()
        except DemoFailed:
            return

    def _recover(self) -> None:
        recovery = self.recovery
        self._step("accident", recovery.accident)
        self._step("restore points", recovery.restore_points)
        self._step("restore preview", recovery.preview)
        self._step("point-in-time restore", recovery.restore)
        self._step("bring back", recovery.bring_back)

    def _step(self, name: str, act: "Callable[[Step], Any]") -> Any:  # noqa: ANN401 - what one step hands to the next
        notice(f"{name} …")
        step = Step(name)
        self.steps.append(step)
        began = time.monotonic()
        try:
            result = act(step)
        except Exception as error:
            # Whatever it was, the report has to show it.
            step.fail(str(error) or type(error).__name__)
            raise DemoFailed(f"{name} failed") from error
        finally:
            step.seconds = time.monotonic() - began
            notice(f"{name}: {step.evidence} ({step.seconds:.1f} s)")
        if not step.passed:
            raise DemoFailed(f"{name}: {step.evidence}")
        return result

    def _seed(self, step: Step) -> None:
        undo_damage(self.home / "studio")
        summary = build_studio(self.installation.source.dsn, self.home / "studio")
        step.size_bytes = summary.asset_bytes
        step.evidence = (
            f"{summary.characters} characters, {summary.segments:,} segments, {summary.assets:,} asset files"
            + ("" if summary.built else " (kept from the last time)")
        )
        step.passed = summary.characters >= 200 and summary.segments >= 2000 and summary.asset_bytes >= 200 * 10**6

    def _full_backup(self, step: Step) -> Manifest:
        run = self.run_flow(step, "full-backup/full-backup")
        database, configuration = self._set_of(run)
        self._judge_backup(step, database, BackupType.FULL)
        step.size_bytes += configuration.manifest.size_bytes
        step.evidence += f", with {configuration.manifest.label}"
        return database.manifest

    def _change(self, step: Step) -> StudioChanges:
        changes = change_studio(self.installation.source.dsn, self.home / "studio")
        step.size_bytes = changes.bytes_written
        step.evidence = (
            f"{changes.segments_added} segments added, {changes.segments_approved} approved, "
            f"{changes.segments_deleted} deleted, {changes.workflows_edited} workflow edited"
        )
        step.passed = changes.segments_added > 0
        return changes

    def _incremental(self, step: Step, full: Manifest, changes: StudioChanges) -> str:
        run = self.run_flow(step, "incremental-backup/incremental-backup")
        backup = self._backups_of(run.id)[0]
        self._judge_backup(step, backup, BackupType.INCREMENTAL)
        rows_before, rows_now = (_rows(manifest, "studio.segments") for manifest in (full, backup.manifest))
        grown = changes.segments_added - changes.segments_deleted
        step.evidence += f", on {backup.manifest.parent_label}"
        if backup.manifest.parent_label != full.label or rows_now - rows_before != grown:
            step.fail(f"{backup.manifest.label} has {rows_now} segments on {rows_before}, expected {grown:+d}")
        return backup.manifest.label

    def _config_export(self, step: Step) -> None:
        run = self.run_flow(step, "config-export/config-export")
        (backup,) = self._backups_of(run.id)
        step.size_bytes = backup.manifest.size_bytes
        repository = self.installation.repository()
        with repository.open_object(backup.manifest.label, backup.manifest.objects[0].name) as stream:
            counts = decode_archive(stream).index.counts_by_kind()
        platform = {name: count for name, count in counts.items() if name in self._kinds()}
        step.evidence = ", ".join(f"{count} {name}" for name, count in platform.items())
        step.passed = len(platform) == _KINDS and all(platform.values())

    def _test_restore(self, step: Step, expected: str) -> None:
        run = self.run_flow(step, "test-restore/test-restore")
        repository = self.installation.repository()
        events = [(label, event) for label in repository.labels() for event in repository.events(label)]
        ours = [(label, event) for label, event in events if event.detail.get("drill") == str(run.id)]
        if not ours:
            step.fail("storage has no event of the drill")
            return
        ((label, event),) = ours
        phases = event.detail["phases"]
        step.size_bytes = repository.manifest(label).size_bytes
        faults = count_text(len(event.detail["faults"]), "fault")
        step.evidence = f"{label} {event.kind}: restored and compared in {sum(phases.values()):.1f} s, {faults}"
        step.passed = label == expected and event.kind == "verified" and repository.load(label).state.verified

    def _verify_assets(self, step: Step) -> None:
        undo_damage(self.home / "studio")
        damage = damage_assets(self.installation.source.dsn, self.home / "studio")
        run = self.run_flow(step, "asset-verification/asset-verification", expected="FoundProblems")
        rows = self.installation.catalog.findings.list_open(limit=50).rows
        found = {(str(row.finding), row.path) for row in rows}
        wanted = {("corrupt", damage.corrupted.path), ("missing", damage.removed.path)}
        step.evidence = f"found both: {damage.corrupted.path} corrupt, {damage.removed.path} missing"
        step.passed = found == wanted
        if not step.passed:
            step.fail(f"{run.message}; open findings {sorted(found)}, wanted {sorted(wanted)}")
        # The demo may be played again: the studio gets its two files back.
        undo_damage(self.home / "studio")

    def _retention(self, step: Step) -> None:
        before = self.installation.repository().labels()
        planned = sorted(decision.candidate.label for decision in plan_retention(self.installation).expired)
        self.run_flow(step, "retention/retention")
        after = self.installation.repository().labels()
        gone = [label for label in before if label not in after]
        step.size_bytes = 0
        step.evidence = f"{len(after)} kept, {len(gone)} expired" + (f" ({', '.join(gone[:2])} …)" if gone else "")
        verified = [item for item in self.installation.repository().backups() if item.state.verified]
        step.passed = bool(verified) and sorted(gone) == planned and bool(gone)
        if not step.passed:
            step.fail(f"planned to expire {planned}, expired {gone}, verified {[v.manifest.label for v in verified]}")

    def run_flow(
        self, step: Step, name: str, parameters: Mapping[str, Any] | None = None, *, expected: str = "Completed"
    ) -> TriggeredRun:
        """Run a deployment to its end, as a person would in Prefect; raises DemoFailed unless it ends as expected."""
        run = trigger(self.installation, name, parameters, timeout_seconds=_RUN_TIMEOUT_SECONDS)
        step.url = run.url
        if run.state_name != expected:
            raise DemoFailed(f"the flow run {run.name} is {run.state_name}: {run.message}", hint=f"Look at {run.url}")
        step.passed = True
        return run

    def _judge_backup(self, step: Step, backup: StoredBackup, kind: BackupType) -> None:
        manifest = backup.manifest
        faults = list(self.installation.repository().check_objects(manifest))
        row = self.installation.catalog.backups.get(manifest.id)
        same = row is not None and row.manifest_sha256 == backup.manifest_sha256 and row.status == "completed"
        step.size_bytes = manifest.size_bytes
        step.evidence = f"{manifest.label}, {count_text(len(manifest.objects), 'object')} checked, catalog agrees"
        if faults or not same or manifest.type is not kind:
            step.fail(f"{manifest.label} is {manifest.type}; faults {faults}; catalog row {row}")

    def _set_of(self, run: TriggeredRun) -> tuple[StoredBackup, StoredBackup]:
        found = self._backups_of(run.id)
        databases = [item for item in found if item.manifest.type is not BackupType.CONFIG]
        configurations = [item for item in found if item.manifest.type is BackupType.CONFIG]
        if len(databases) != 1 or len(configurations) != 1:
            raise DemoFailed(f"the flow run {run.name} left {[item.manifest.label for item in found]}")
        return databases[0], configurations[0]

    def _backups_of(self, flow_run_id: UUID) -> list[StoredBackup]:
        found = [item for item in self.installation.repository().backups() if item.manifest.flow_run_id == flow_run_id]
        if not found:
            raise DemoFailed(f"storage has no backup of the flow run {flow_run_id}")
        return found

    def _kinds(self) -> set[str]:
        sections = self.installation.settings.configuration.sections
        return {section.kind or name for name, section in sections.items()}


def _rows(manifest: Manifest, table: str) -> int:
    tables = manifest.fingerprint.tables if manifest.fingerprint else []
    counts = [item.row_count for item in tables if item.qualified_name == table]
    return counts[0] or 0 if counts else 0


def _write_settings(home: Path, port: int) -> Path:
    path = home / _SETTINGS_NAME
    studio = home / "studio"
    document: dict[str, Any] = {
        "state_dir": str(home / "state"),
        "platform": {"cluster": "studio", "embedded": True, "database": "studio"},
        "destinations": {"primary": {"path": str(home / "backups"), "minimum_free_bytes": 64 * 1024 * 1024}},
        "wal": {"minimum_free_bytes": 64 * 1024 * 1024},
        "agent": {"heartbeat_seconds": 1, "observe_seconds": 5},
        "prefect": {"port": port, "worker_poll_seconds": 1},
        "retention": {"keep_last": 1, "keep_days": 0},
        "configuration": {"search_path": ["studio"], "sections": demo_configuration_sections(studio)},
        "assets": {"roots": [str(assets_root(studio))], "query": demo_asset_query()},
        "drills": {"validation": demo_validation_queries()},
    }
    text = "# Written by `lifeboat demo` each time it runs.\n" + tomlkit.dumps(document)
    write_durably(path, text.encode(), mode=0o600)
    return path


def _free_port(first: int) -> int:
    for port in range(first, _FIRST_PORT + _PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise DemoFailed(f"no free port from {_FIRST_PORT} to {_FIRST_PORT + _PORTS_TRIED - 1} on 127.0.0.1")
