"""Applies a retention plan at one destination, and tells the planner what is there."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from lifeboat.errors import PermanentError
from lifeboat.retention.policy import Candidate, ExpiryPlan
from lifeboat.storage.events import Event, EventKind
from lifeboat.storage.manifest import Manifest
from lifeboat.storage.repository import BackupRepository


class PlanOutdated(PermanentError):
    """What storage holds is no longer what the plan was made from."""


def candidates_of(repository: BackupRepository, in_use: Iterable[str] = ()) -> list[Candidate]:
    """Every finished backup at the destination with its state; raises ManifestError when one cannot be trusted."""
    busy = set(in_use)
    return [
        Candidate(
            id=stored.manifest.id,
            label=stored.manifest.label,
            type=stored.manifest.type,
            engine=stored.manifest.engine,
            set_id=stored.manifest.set_id,
            parent_label=stored.manifest.parent_label,
            completed_at=stored.manifest.completed_at,
            size_bytes=stored.manifest.size_bytes,
            verified=stored.state.verified,
            pinned=stored.state.pinned,
            suspect=stored.state.suspect,
            in_use=stored.manifest.label in busy,
            failed=stored.state.failed_drill_at is not None and not stored.state.verified,
        )
        for stored in repository.backups()
    ]


def expire_backups(
    repository: BackupRepository,
    plan: ExpiryPlan,
    plan_again: Callable[[], ExpiryPlan],
    claim: Callable[[str], AbstractContextManager[bool]],
    on_expired: Callable[[Manifest, datetime], None],
) -> list[str]:
    """Expire what the plan says, dependents first; a repeated call goes on where an interrupted one stopped.

    `plan_again` makes the plan from what is there now: raises PlanOutdated when it wants anything else than `plan`
    still has to do, and keeps what it would keep by then. `claim` holds a label alone and says whether it could; a
    backup that somebody reads stays. `on_expired` hears of each one that goes.
    """
    waiting = [decision.candidate.label for decision in plan.expired if decision.candidate.label in repository.labels()]
    if sorted(waiting) != sorted(decision.candidate.label for decision in plan_again().expired):
        raise PlanOutdated(
            "the backups have changed since the retention plan was made", hint="Look at the new plan and apply that."
        )
    gone: list[str] = []
    for label in waiting:
        with claim(label) as alone:
            # Deleting takes time: somebody may have pinned it, or a drill failed, since the last one went.
            decision = {item.candidate.label: item for item in plan_again().expired}.get(label) if alone else None
            if decision is None:
                continue
            manifest, at = repository.manifest(label), datetime.now(UTC)
            detail = {"plan": plan.plan_hash, "reasons": list(decision.reasons)}
            repository.append_event(
                Event(kind=EventKind.EXPIRED, at=at, backup_id=manifest.id, label=label, detail=detail)
            )
            repository.expire(label)
        on_expired(manifest, at)
        gone.append(label)
    return gone


def finish_interrupted(repository: BackupRepository) -> list[str]:
    """Remove the payload of backups whose expiry was interrupted; returns their labels."""
    done = []
    for label in repository.expired_labels():
        if repository.leftovers(label):
            repository.expire(label)
            done.append(label)
    return done
