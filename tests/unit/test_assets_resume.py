"""An interrupted check goes on where it stopped, and keeps every finding that it had made durable."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.assets.findings import Finding, FindingKind
from lifeboat.assets.integrity import verify_assets
from lifeboat.assets.records import AssetRecord, sampled
from lifeboat.assets.resume import CheckRunning, CheckState, ResumeFile
from tests.support.assets import behind, record_of, write_assets

THOUSAND = [AssetRecord(str(number), "", "a.mp4", None, None) for number in range(1000)]


class Interrupted(Exception):
    """What the tests stop a check with."""


def finding(identity: str) -> Finding:
    return Finding(identity, "final_video", f"{identity}.mp4", FindingKind.MISSING, "is not there")


def state_at(state: CheckState, position: str, missing: int) -> CheckState:
    return CheckState(**{**state.__dict__, "position": position, "checked": int(position), "missing": missing})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "other").touch()
    return folder


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "assets.json"


def test_a_stopped_check_goes_on_and_loses_no_finding(root: Path, state_file: Path) -> None:
    records = write_assets(root, 1000)
    damaged = records[::50]
    for record in damaged:
        (root / record.path).unlink()
    first: list[Finding] = []

    def stop_half_way(finding: Finding) -> None:
        first.append(finding)
        if len(first) == 10:
            raise Interrupted

    with ResumeFile(state_file) as resume, pytest.raises(Interrupted):
        verify_assets(records, [root], resume=resume, on_finding=stop_half_way)
    # What was wrong before the stop is repaired: only the journal still knows of it.
    with ResumeFile(state_file) as resume:
        assert resume.resumed
        for earlier in resume.findings():
            (root / earlier.path).write_bytes(b"repaired")
        rest = behind(records, resume.position)
        second: list[Finding] = []
        report = verify_assets(rest, [root], resume=resume, on_finding=second.append)

    assert 500 <= len(rest) < 1000
    assert report.resumed
    assert (report.checked, report.missing) == (1000, 20)
    assert [each.asset_id for each in report.findings] == [record.id for record in damaged]
    assert report.findings == tuple(second)
    assert report.bytes_checked == sum(record.size_bytes or 0 for record in records if record not in damaged)
    assert not state_file.exists()


def test_a_finished_check_starts_again(root: Path, state_file: Path) -> None:
    records = write_assets(root, 10)
    for _ in range(2):
        with ResumeFile(state_file) as resume:
            assert resume.position is None
            assert verify_assets(records, [root], resume=resume).checked == 10


def test_what_the_state_does_not_count_is_cut_off(state_file: Path) -> None:
    with ResumeFile(state_file) as resume:
        resume.save(state_at(resume.state, "10", 1), [finding("3")])
        resume.save(state_at(resume.state, "20", 2), [finding("15")])
    # A kill after the journal's write and before the state's leaves a tail, perhaps half a line.
    with resume.journal_path.open("a") as journal:
        journal.write(json.dumps(finding("22").as_json()) + '\n{"asset_id": "2')

    with ResumeFile(state_file) as resume:
        assert [each.asset_id for each in resume.findings()] == ["3", "15"]
        assert (resume.position, resume.state.missing) == ("20", 2)
        resume.save(state_at(resume.state, "30", 3), [finding("22")])
        assert [each.asset_id for each in resume.findings()] == ["3", "15", "22"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b'{"format_version": 99}', b'{"format_version": 1}'])
def test_a_state_that_cannot_be_read_means_a_fresh_start(state_file: Path, content: bytes) -> None:
    with ResumeFile(state_file) as resume:
        resume.save(state_at(resume.state, "10", 1), [finding("3")])
    state_file.write_bytes(content)

    with ResumeFile(state_file) as resume:
        assert resume.position is None
        assert list(resume.findings()) == []


def test_a_journal_shorter_than_its_state_means_a_fresh_start(state_file: Path) -> None:
    with ResumeFile(state_file) as resume:
        resume.save(state_at(resume.state, "10", 1), [finding("3")])
    resume.journal_path.write_bytes(b"")

    with ResumeFile(state_file) as resume:
        assert resume.position is None


def test_another_scope_and_an_old_state_mean_a_fresh_start(state_file: Path) -> None:
    with ResumeFile(state_file, scope="videos") as resume:
        resume.save(state_at(resume.state, "10", 0), [])
    with ResumeFile(state_file, scope="videos") as resume:
        assert resume.position == "10"
    with ResumeFile(state_file, scope="images") as resume:
        assert resume.position is None
    with ResumeFile(state_file, scope="videos", max_age=timedelta(0)) as resume:
        assert resume.position is None


def test_the_age_counts_from_the_start_of_the_check(state_file: Path) -> None:
    with ResumeFile(state_file) as resume:
        old = CheckState(scope="", token="t", started_at=datetime.now(UTC) - timedelta(hours=25), position="5")
        resume.save(old, [])

    with ResumeFile(state_file) as resume:
        assert resume.position is None
    with ResumeFile(state_file, max_age=timedelta(hours=26)) as resume:
        assert resume.state == old


def test_two_checks_with_one_state_are_refused(state_file: Path) -> None:
    with ResumeFile(state_file), pytest.raises(CheckRunning, match="another asset check has"):
        ResumeFile(state_file)
    ResumeFile(state_file).close()


def test_a_state_that_cannot_be_saved_does_not_hide_the_reason(root: Path, state_file: Path) -> None:
    def stop(_: Finding) -> None:
        shutil.rmtree(state_file.parent)
        raise Interrupted

    with ResumeFile(state_file) as resume, pytest.raises(Interrupted):
        verify_assets([record_of("1", "gone.mp4", b"")], [root], resume=resume, on_finding=stop)


@given(fraction=st.floats(0.01, 1), seed=st.text(max_size=40))
def test_a_sample_is_a_stable_share(fraction: float, seed: str) -> None:
    taken = [int(record.id) for record in sampled(THOUSAND, fraction, seed)]

    assert taken == [int(record.id) for record in sampled(THOUSAND, fraction, seed)]
    assert taken == sorted(taken)
    # Eight standard deviations.
    assert abs(len(taken) / 1000 - fraction) < 0.127


def test_samples_differ_from_check_to_check() -> None:
    first, second = (set(sampled(THOUSAND, 0.1, CheckState.new("").token)) for _ in range(2))

    assert len(first & second) < 50
