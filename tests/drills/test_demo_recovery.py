"""The demo's accident and recovery: its steps pass when all is well, and fail when a restore is not what it should be.

Its flows run in process here; `.ci/run` plays the whole demo through Prefect.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from console.cli.demo_recovery import Recovery
from console.cli.demo_report import DemoFailed, Step
from deployments.triggering import PublishedArtifact, TriggeredRun
from lifeboat.catalog.migrate import migrate
from lifeboat.demo.accident import DROPPED, LOST, content_of
from lifeboat.demo.studio import build_studio
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.platform import start_platform, stop_platform
from lifeboat.operations.preview.quick import PreviewOrder, preview_restore
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.postgres.binaries import PgTools
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, parse_time
from lifeboat.storage.manifest import BackupType
from tasks.preview_report import preview_report
from tests.support.agent import running_agent
from tests.support.installation import make_installation
from tests.support.postgres import reachable_dir, spare_the_disk

SMALL: dict[str, Any] = {"characters": 12, "segments": 60, "assets_bytes": 600_000}


class InProcess:
    """Runs what the flows run; `late` moves the moment that a restore is asked for, `index` keeps the index fresh."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.late = timedelta()
        self.index = True

    def __call__(self, step: Step, name: str, parameters: Mapping[str, Any]) -> TriggeredRun:
        """The same as the flow of that name."""
        identity, artifacts = uuid4(), tuple[PublishedArtifact, ...]()
        at = parse_time(parameters["at"], datetime.now(UTC))
        if name.startswith("restore-preview/"):
            order = PreviewOrder(RecoveryTarget(TargetKind.TIME, at=at), update_index=self.index)
            text = preview_report(preview_restore(self.installation, order))
            artifacts = (PublishedArtifact("restore-preview", "markdown", "", text),)
        else:
            target = RecoveryTarget(TargetKind.TIME, at=at + self.late)
            run_restore(
                self.installation, RestoreOrder(target, RestoreTo.parse(parameters["to"]), flow_run_id=identity)
            )
        step.passed = True
        return TriggeredRun(identity, name, "", "COMPLETED", "Completed", "", 0.0, artifacts)


@pytest.fixture(scope="module")
def home(pg_tools: PgTools) -> Iterator[Path]:
    """A platform with an archive, and an agent that beats."""
    with reachable_dir() as path:
        installation = make_installation(path, pg_tools)
        spare_the_disk(start_platform(installation))
        migrate(installation.source)
        with running_agent(installation.source, installation.catalog):
            yield path
        stop_platform(installation)


@pytest.fixture
def flows(home: Path, pg_tools: PgTools) -> InProcess:
    """What stands in for Prefect."""
    return InProcess(make_installation(home, pg_tools))


@pytest.fixture
def recovery(home: Path, flows: InProcess) -> Recovery:
    """The steps, on a studio that is whole and backed up, whatever the test before this one left."""
    if build_studio(flows.installation.source, home / "studio", **SMALL).built:
        take_backup(flows.installation, BackupOrder(BackupType.FULL))
    return Recovery(flows.installation, home, flows)


def play(act: Callable[[Step], None]) -> Step:
    step = Step(act.__name__)
    act(step)
    return step


def test_the_accident_is_previewed_undone_and_proven(recovery: Recovery, home: Path) -> None:
    source = recovery.installation.source
    for act in (recovery.accident, recovery.restore_points, recovery.preview, recovery.restore, recovery.bring_back):
        step = play(act)
        assert step.passed, step.evidence
        if act == recovery.preview:
            assert f"DROP of {DROPPED} (about {recovery.before[DROPPED].rows} rows)" in step.evidence
    assert content_of(source) == recovery.before
    assert recovery.before.keys() == set(LOST)
    assert all(each.rows for each in recovery.before.values())
    assert not build_studio(source, home / "studio", **SMALL).built
    looks = "\n".join(recovery.looks(home / "lifeboat.toml"))
    assert f"-D {recovery.place} " in looks
    assert (recovery.place / "PG_VERSION").is_file()


def test_a_restore_that_lands_elsewhere_is_not_taken_for_the_recovery(
    recovery: Recovery, flows: InProcess, home: Path
) -> None:
    assert play(recovery.accident).passed
    repository = recovery.installation.repository()
    flows.late = repository.manifest(repository.labels()[-1]).completed_at - recovery.target
    early = play(recovery.restore)
    assert not early.passed
    assert DROPPED in early.evidence  # without the last good commit
    assert "landed at" in early.evidence
    # Nobody has brought back what was lost: the studio is made anew.
    assert build_studio(recovery.installation.source, home / "studio", **SMALL).built


def test_a_preview_that_knows_too_little_fails(recovery: Recovery, flows: InProcess) -> None:
    assert play(recovery.accident).passed
    flows.index = False
    step = play(recovery.preview)
    assert not step.passed
    assert "the report does not name" in step.evidence


def test_nothing_is_told_of_an_accident_that_was_not(recovery: Recovery, home: Path) -> None:
    assert recovery.looks(home / "lifeboat.toml") == []
    with pytest.raises(DemoFailed, match="no accident"):
        recovery.restore(Step("restore"))
