"""What commands write: aligned lines where nobody sees colours, JSON of any value, log lines above a display."""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from uuid import UUID

import pytest

from console.cli import output
from console.cli.confirmation import PlanNotConfirmed, confirm_plan
from console.cli.progress import follow
from lifeboat.storage.manifest import BackupType


@dataclass(frozen=True)
class Found:
    """A result with the usual types."""

    id: UUID
    kind: BackupType
    at: datetime
    path: Path
    sizes: tuple[int, ...]


def test_a_table_in_a_pipe_is_plain_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_table(("name", "size", "why"), [("a", 5, None), ("long name", 12345, "x")], right=("size",))

    assert capsys.readouterr().out == "name        size  why\na              5\nlong name  12345  x\n"


def test_a_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    output.say_table(("name", "size"), [])

    assert capsys.readouterr().out == "name  size\n"


def test_json_knows_the_usual_types(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 11, 22, 19, tzinfo=UTC)
    output.say_json([Found(UUID(int=1), BackupType.FULL, at, Path("/x"), (1, 2))])

    (found,) = json.loads(capsys.readouterr().out)
    assert found == {
        "id": "00000000-0000-0000-0000-000000000001",
        "kind": "full",
        "at": "2026-11-22T19:00:00Z",
        "path": "/x",
        "sizes": [1, 2],
    }


def test_notices_go_to_stderr_or_through_the_display(capsys: pytest.CaptureFixture[str]) -> None:
    through: list[str] = []
    output.notice("before")
    output.push_live(through.append)
    output.notice("meanwhile")
    output.pop_live()
    output.notice("after")

    assert through == ["meanwhile"]
    assert capsys.readouterr() == ("", "before\nafter\n")


def test_warnings_of_the_domain_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    handler = output.LogLines()
    for level in (logging.INFO, logging.WARNING):
        handler.emit(logging.LogRecord("lifeboat", level, __file__, 1, "it %s", ("happened",), None))

    assert capsys.readouterr().err == "it happened\nwarning: it happened\n"


def test_progress_in_a_pipe_is_a_line_a_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with follow("drill") as follower:
        follower.phase("restore files")
        follower.amount(10, 100)

    assert capsys.readouterr() == ("", "drill: restore files\n")


def test_a_plan_is_approved_by_its_own_hash_only() -> None:
    shown: list[str] = []

    def confirm(approved: str) -> None:
        confirm_plan("0123456789abcdef", approved, show=lambda: shown.append("shown"), question="do it")

    confirm("0123456789ab")
    confirm("0123456789abcdef")
    for wrong in ("0123456789", "", "fedcba9876543210", "0123456789abcdee"):
        with pytest.raises(PlanNotConfirmed, match=f"the plan is 0123456789ab now, not {wrong!r}"):
            confirm(wrong)
    assert shown == []


@pytest.mark.parametrize(("answer", "confirmed"), [("0123456789ab\n", True), ("yes\n", False), ("\n0123\n", False)])
def test_a_person_types_what_was_shown(answer: str, confirmed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("sys.stdin", StringIO(answer))

    def confirm() -> None:
        confirm_plan("0123456789abcdef", None, show=lambda: shown.append("shown"), question="do it")

    if confirmed:
        confirm()
    else:
        with pytest.raises(PlanNotConfirmed, match="not confirmed"):
            confirm()
    assert shown == ["shown"]
