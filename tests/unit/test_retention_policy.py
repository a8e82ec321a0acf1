"""The planner against its invariants, over every shape of history that hypothesis finds."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.retention.policy import Candidate, ExpiryPlan, Rules, Verdict, plan_expiry
from lifeboat.storage.manifest import BackupType

pytestmark = pytest.mark.property
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@st.composite
def histories(draw: st.DrawFn) -> list[Candidate]:
    """Chains, dumps and configuration archives in any order, with any flags."""
    candidates: list[Candidate] = []
    heads: list[str] = []
    sets: list[UUID] = []
    for number in range(draw(st.integers(0, 25))):
        kind = draw(st.sampled_from(list(BackupType)))
        chained = kind in {BackupType.DIFFERENTIAL, BackupType.INCREMENTAL}
        if chained and not heads:
            kind, chained = BackupType.FULL, False
        label = f"{number:03d}{kind.value}"
        set_id = draw(st.sampled_from(sets)) if kind is BackupType.CONFIG and sets else uuid4()
        sets.append(set_id)
        candidates.append(
            Candidate(
                id=uuid4(),
                label=label,
                type=kind,
                engine="pg_dump" if kind is BackupType.LOGICAL else "basebackup",
                set_id=set_id,
                parent_label=draw(st.sampled_from(heads)) if chained else None,
                completed_at=NOW - timedelta(hours=24 * 60 - number * draw(st.sampled_from([1, 50]))),
                size_bytes=draw(st.integers(0, 10**9)),
                verified=draw(st.booleans()),
                pinned=draw(st.integers(0, 5)) == 0,
                suspect=draw(st.integers(0, 3)) == 0,
                in_use=draw(st.integers(0, 5)) == 0,
                failed=draw(st.integers(0, 3)) == 0,
            )
        )
        if kind in {BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL}:
            heads.append(label)
    return draw(st.permutations(candidates))


rules = st.builds(Rules, keep_last=st.integers(1, 5), keep_days=st.integers(0, 90))


def _kept(plan: ExpiryPlan) -> set[str]:
    return {decision.candidate.label for decision in plan.kept}


@given(histories(), rules)
def test_every_backup_gets_one_verdict_with_a_reason(history: list[Candidate], given_rules: Rules) -> None:
    plan = plan_expiry("primary", history, given_rules, NOW)
    assert sorted(d.candidate.label for d in plan.decisions) == sorted(c.label for c in history)
    assert all(decision.reasons for decision in plan.decisions)


@given(histories(), rules)
def test_guards_hold_whatever_the_rules_say(history: list[Candidate], given_rules: Rules) -> None:
    kept = _kept(plan_expiry("primary", history, given_rules, NOW))
    for candidate in history:
        if candidate.pinned or candidate.in_use or candidate.suspect:
            assert candidate.label in kept
    for group in ({BackupType.LOGICAL}, {BackupType.CONFIG}, set(BackupType) - {BackupType.LOGICAL, BackupType.CONFIG}):
        good = [c for c in history if c.type in group and c.verified and not c.suspect and not c.failed]
        if good:
            assert max(good, key=lambda c: (c.completed_at, c.label)).label in kept


@given(histories(), rules)
def test_nothing_kept_depends_on_something_expired(history: list[Candidate], given_rules: Rules) -> None:
    kept = _kept(plan_expiry("primary", history, given_rules, NOW))
    for candidate in history:
        if candidate.label in kept and candidate.parent_label is not None:
            assert candidate.parent_label in kept


@given(histories(), rules)
def test_an_interruption_at_any_point_leaves_only_whole_chains(history: list[Candidate], given_rules: Rules) -> None:
    plan = plan_expiry("primary", history, given_rules, NOW)
    left = {candidate.label: candidate for candidate in history}
    for decision in plan.expired:
        del left[decision.candidate.label]
        assert all(c.parent_label is None or c.parent_label in left for c in left.values())


@given(histories(), rules)
def test_a_second_plan_after_the_first_was_applied_expires_nothing(
    history: list[Candidate], given_rules: Rules
) -> None:
    kept = [decision.candidate for decision in plan_expiry("primary", history, given_rules, NOW).kept]
    assert plan_expiry("primary", kept, given_rules, NOW).expired == []


@given(histories(), rules)
def test_the_order_of_the_input_does_not_matter(history: list[Candidate], given_rules: Rules) -> None:
    forward = plan_expiry("primary", history, given_rules, NOW)
    assert forward == plan_expiry("primary", history[::-1], given_rules, NOW)
    assert forward.plan_hash == plan_expiry("primary", history[::-1], given_rules, NOW).plan_hash


def test_old_backups_without_a_reason_go() -> None:
    def full(days: int) -> Candidate:
        return Candidate(
            uuid4(), f"full-{days}", BackupType.FULL, "basebackup", uuid4(), None, NOW - timedelta(days=days), 1
        )

    plan = plan_expiry("primary", [full(days) for days in (1, 40, 50, 60)], Rules(keep_last=2, keep_days=30), NOW)
    assert {d.candidate.label: d.verdict for d in plan.decisions} == {
        "full-1": Verdict.KEEP,
        "full-40": Verdict.KEEP,
        "full-50": Verdict.EXPIRE,
        "full-60": Verdict.EXPIRE,
    }
    assert plan.freed_bytes == 2


def test_a_backup_that_failed_its_drill_does_not_stand_in_for_a_good_one() -> None:
    def full(days: int, *, failed: bool) -> Candidate:
        at = NOW - timedelta(days=days)
        return Candidate(uuid4(), f"full-{days}", BackupType.FULL, "basebackup", uuid4(), None, at, 1, failed=failed)

    history = [full(3, failed=False), full(2, failed=True), full(1, failed=True)]
    plan = plan_expiry("primary", history, Rules(keep_last=1, keep_days=0), NOW)
    assert [decision.candidate.label for decision in plan.kept] == ["full-3"]
    all_failed = plan_expiry("primary", [full(2, failed=True), full(1, failed=True)], Rules(1, 0), NOW)
    assert [decision.candidate.label for decision in all_failed.kept] == ["full-1"]
