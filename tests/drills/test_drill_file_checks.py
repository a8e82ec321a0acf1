"""Which folders of a drill pg_verifybackup is asked about, and what its answers make of the drill.

It is a stand-in here: the embedded PostgreSQL 18's crashes at its start. tests/drills/test_postgresql_15.py has a real
one.
"""

from pathlib import Path

import pytest

from lifeboat.operations.installation import Installation
from lifeboat.operations.restore_drill import DrillOrder, run_drill
from lifeboat.operations.take_backup import BackupOrder, take_backup
from lifeboat.postgres.binaries import PgTools, find_embedded_bin_dir
from lifeboat.postgres.folders import give_to
from lifeboat.storage.manifest import BackupType
from lifeboat.verification.verifybackup import PROGRAM

CRASHES = "pg_verifybackup could not run: it crashes (signal 11)"


@pytest.fixture
def chain(installation: Installation) -> str:
    """The label of an incremental backup."""
    if installation.tools.major < 17:
        pytest.skip("incremental base backups came with PostgreSQL 17")
    take_backup(installation, BackupOrder(BackupType.FULL))
    return take_backup(installation, BackupOrder(BackupType.INCREMENTAL)).label


def with_stand_in(installation: Installation, folder: Path, script: str) -> Installation:
    """The same installation, whose pg_verifybackup is a shell script that is told a folder as `$1`."""
    folder.mkdir()
    for program in installation.tools.bin_dir.iterdir():
        if program.name != PROGRAM:
            (folder / program.name).symlink_to(program)
    body = f'#!/bin/sh\n[ "$1" != --version ] || {{ echo "{PROGRAM} (PostgreSQL) 18.4"; exit 0; }}\n{script}\n'
    (folder / PROGRAM).write_text(body)
    (folder / PROGRAM).chmod(0o755)
    made = Installation(installation.settings)
    vars(made)["tools"] = PgTools(folder, installation.tools.user)
    return made


def test_every_unpacked_backup_and_the_combined_one_are_checked_before_a_server_starts(
    installation: Installation, chain: str, reachable_tmp: Path
) -> None:
    log = reachable_tmp / "asked"
    log.touch()
    give_to(log, installation.run_as)
    script = (
        f'echo "$(basename "$1") $(id -u) $(stat -c %u "$1") $([ -e "$1/postmaster.pid" ] && echo started)" >> {log}'
    )
    asked = with_stand_in(installation, reachable_tmp / "bin", script)
    report = run_drill(asked, DrillOrder(chain))
    assert (report.faults, [note for note in report.notes if PROGRAM in note]) == ([], [])
    user = log.stat().st_uid
    assert [line.split() for line in log.read_text().splitlines()] == [
        [name, str(user), str(user)] for name in ("data.0", "data.1", "data")
    ]


@pytest.mark.parametrize(("folder", "named"), [("data.1", "differs from PostgreSQL's manifest"), ("data", "combined")])
def test_its_complaint_is_a_fault_of_the_drill(
    installation: Installation, chain: str, reachable_tmp: Path, folder: str, named: str
) -> None:
    complaint = 'pg_verifybackup: error: checksum mismatch for file "base/5/1259"'
    script = f'[ "$(basename "$1")" != {folder} ] || {{ echo \'{complaint}\' >&2; exit 1; }}'
    report = run_drill(with_stand_in(installation, reachable_tmp / "bin", script), DrillOrder(chain))
    (fault,) = report.faults
    assert named in fault
    assert f"{chain}" in fault
    assert complaint.replace(" error:", "") in fault
    assert not installation.repository().load(chain).state.verified


def test_one_that_crashes_is_a_note_and_no_fault(installation: Installation, chain: str) -> None:
    if installation.tools.bin_dir.parent.name != find_embedded_bin_dir().parent.name:
        pytest.skip("this PostgreSQL's pg_verifybackup works")
    report = run_drill(installation, DrillOrder(chain))
    assert (report.faults, report.notes.count(CRASHES)) == ([], 1)
    drills = installation.settings.drills.model_copy(update={"verifybackup": False})
    silent = Installation(installation.settings.model_copy(update={"drills": drills}))
    assert CRASHES not in run_drill(silent, DrillOrder(chain)).notes
