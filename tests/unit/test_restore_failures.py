"""What a recovery that failed advises: by what the server said last."""

from pathlib import Path

import pytest

from lifeboat.operations.restore.recovered_cluster import _failure, _Log


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("FATAL:  recovery ended before configured recovery target was reached", "`lifeboat wal verify --all`"),
        ('FATAL:  could not extend file "base/5/16385": No space left on device', "Free space below"),
        ("FATAL:  recovery aborted because of insufficient parameter settings", None),
    ],
)
def test_the_advice_fits_what_the_server_said(tmp_path: Path, said: str, advice: str | None) -> None:
    log = tmp_path / "log"
    log.write_text(f"2026-11-23 12:00:00.000 UTC [100] {said}\n")
    error = _failure(_Log(log, 0), None)
    assert said.removeprefix("FATAL:  ") in error.message
    assert str(log) in str(error.hint)
    for words in ("wal verify", "Free space"):
        assert (words in str(error.hint)) == (advice is not None and words in advice)
