"""Which folders of a drill pg_verifybackup is asked about, and what its answers make of the drill.

It is a stand-in here: the embedded PostgreSQL 18's crashes at its start. tests/drills/test_postgresql_15.py has a real
one.
"""

from pathlib import Path

import pytest

from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.installation import Installation
from lifeboat.postgres.binaries import PgTools, find_embedded_bin_dir
from lifeboat.postgres.folders import give_to
from lifeboat.storage.manifest import BackupType
from lifeboat.verification.verifybackup import PROGRAM, FileCheckFailed

CRASHES = (
    "the files were checked by Lifeboat alone, for PostgreSQL's own pg_verifybackup cannot run: "
    "the program in this installation crashes (signal 11)"
)


@pytest.fixture
def chain(installation: Installation) -> str:
    """The label of an incremental backup."""
    if installation.tools.major < 17:
        pytest.skip("incremental base backups came with PostgreSQL 17")
    take_backup(installation, BackupOrder(BackupType.FULL))
    return take_backup(installation, BackupOrder(BackupType.INCREMENTAL)).label


def with_stand_in(installation: Installation, folder: Path, script: str, name: str = PROGRAM) -> Installation:
    """The same installation, whose pg_verifybackup, or another program, is a shell script.

    The former is told a folder as `$1`.
    """
    folder.mkdir()
    for program in installation.tools.bin_dir.iterdir():
        if program.name != name:
            (folder / program.name).symlink_to(program)
    body = f'#!/bin/sh\n[ "$1" != --version ] || {{ echo "{name} (PostgreSQL) 18.4"; exit 0; }}\n{script}\n'
    (folder / name).write_text(body)
    (folder / name).chmod(0o755)
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


@pytest.mark.parametrize("verifybackup", [True, False])
def test_damage_to_what_was_combined_is_named_whether_or_not_pg_verifybackup_works(
    installation: Installation, chain: str, reachable_tmp: Path, verifybackup: bool
) -> None:
    real = installation.tools.path("pg_combinebackup")
    hurt = 'printf "not 18" | dd of="$out/PG_VERSION" conv=notrunc status=none; rm "$out/global/pg_filenode.map"'
    script = f"""{real} "$@" || exit
for word; do case $word in --output=*) out=${{word#--output=}} ;; esac; done
{hurt}"""
    drills = installation.settings.drills.model_copy(update={"verifybackup": verifybackup})
    made = Installation(installation.settings.model_copy(update={"drills": drills}))
    asked = with_stand_in(made, reachable_tmp / "bin", script, "pg_combinebackup")
    report = run_drill(asked, DrillOrder(chain))
    (fault,) = report.faults
    assert f"{chain}, combined with what it builds on" in fault
    assert "PG_VERSION: 6 bytes instead of 3" in fault
    assert "global/pg_filenode.map: missing" in fault
    assert report.phases["check files"] > 0


def test_its_own_trouble_condemns_nothing_and_proves_nothing(
    installation: Installation, chain: str, reachable_tmp: Path
) -> None:
    trouble = 'pg_verifybackup: error: could not open file "/x": Too many open files'
    asked = with_stand_in(installation, reachable_tmp / "bin", f"echo '{trouble}' >&2; exit 1")
    with pytest.raises(FileCheckFailed, match="Too many open files"):
        run_drill(asked, DrillOrder(chain))
    state = installation.repository().load(chain).state
    assert (state.verified, state.failed_drill_at) == (False, None)
    assert list(installation.settings.scratch_dir.glob("scratch-*")) == []


def test_one_that_crashes_is_a_note_and_no_fault(installation: Installation, chain: str) -> None:
    if installation.tools.bin_dir.parent.name != find_embedded_bin_dir().parent.name:
        pytest.skip("this PostgreSQL's pg_verifybackup works")
    report = run_drill(installation, DrillOrder(chain))
    assert (report.faults, report.notes.count(CRASHES)) == ([], 1)
    drills = installation.settings.drills.model_copy(update={"verifybackup": False})
    silent = Installation(installation.settings.model_copy(update={"drills": drills}))
    assert CRASHES not in run_drill(silent, DrillOrder(chain)).notes
