"""What a failure of PostgreSQL's tools is called, and what its hint says."""

import pytest

from lifeboat.commands import CommandFailed
from lifeboat.engines.failures import name_failure
from lifeboat.storage.destination import DestinationFull


@pytest.mark.parametrize(
    ("program", "hint"),
    [
        ("pg_basebackup", "retention"),
        ("tar", "restored to"),
        ("/usr/lib/postgresql/18/bin/pg_combinebackup", "restored to"),
        ("pg_restore", "server"),
    ],
)
def test_a_full_disk_is_looked_for_where_the_program_writes(program: str, hint: str) -> None:
    error = name_failure(CommandFailed(program, 1, "x: Cannot write: No space left on device"), "it")
    assert isinstance(error, DestinationFull)
    assert hint in str(error.hint)
    assert ("retention" in str(error.hint)) == (program == "pg_basebackup")
