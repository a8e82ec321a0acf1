"""Drills tell how far they are: every phase has its place on the bar, and files count by bytes."""

import time

import pytest

from lifeboat.engines.engine import Progress
from lifeboat.operations.backup.integrity import check_backup
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.drill.restore_drill import DrillOrder, Phases, run_drill
from lifeboat.operations.installation import Installation
from lifeboat.storage.manifest import BackupType
from tasks.drill_progress import PHASE_STARTS


@pytest.mark.parametrize(
    ("engine", "kind", "target"),
    [
        ("basebackup", BackupType.FULL, "scratch"),
        ("pg_dump", BackupType.LOGICAL, "scratch"),
        ("pg_dump", BackupType.LOGICAL, "database"),
    ],
)
def test_every_phase_is_told_and_has_its_place_on_the_bar(
    installation: Installation, engine: str, kind: BackupType, target: str
) -> None:
    backup = take_backup(installation, BackupOrder(kind, engine=engine))
    phases: list[str] = []
    amounts: list[tuple[str, Progress]] = []

    def tell(progress: Progress) -> None:
        amounts.append((phases[-1], progress))

    order = DrillOrder(backup.label, target="database" if target == "database" else "scratch")
    report = run_drill(installation, order, phases.append, tell)
    assert report.passed
    assert phases == list(report.phases)
    assert ("check files" in phases) == (engine == "basebackup")
    starts = [PHASE_STARTS[name] for name in phases]
    assert starts == sorted(starts)
    assert {phase for phase, _ in amounts} == {"restore files"}
    done = [progress.done_bytes for _, progress in amounts]
    assert done == sorted(done)
    assert (done[-1], amounts[-1][1].total_bytes) == (backup.size_bytes, backup.size_bytes)


def test_what_is_inside_a_phase_counts_for_itself() -> None:
    told: list[str] = []
    phases = Phases(told.append, lambda progress: told.append(f"{progress.done_bytes} bytes"))
    with phases("restore files"):
        phases.amount(Progress(1, 2))
        for _ in range(2):
            with phases("check files"):
                time.sleep(0.2)
        phases.amount(Progress(2, 2))
    with phases("recover"):
        pass
    assert told == [
        *("restore files", "1 bytes", "check files", "check files"),
        *("restore files", "2 bytes", "recover"),
    ]
    assert list(phases.seconds) == ["restore files", "check files", "recover"]
    assert phases.seconds["check files"] >= 0.4
    assert phases.seconds["restore files"] < 0.2


def test_a_check_counts_the_bytes_of_the_chain(installation: Installation) -> None:
    kinds = [BackupType.FULL, *([BackupType.INCREMENTAL] if installation.tools.major >= 17 else [])]
    backups = [take_backup(installation, BackupOrder(kind)) for kind in kinds]
    repository = installation.repository()
    told: list[tuple[int, int]] = []
    faults = check_backup(
        repository, repository.manifest(backups[-1].label), lambda done, total: told.append((done, total))
    )
    assert faults == []
    total = 2 * sum(backup.size_bytes for backup in backups)
    assert {found for _, found in told} == {total}
    assert total * 0.9 < told[-1][0] <= total
