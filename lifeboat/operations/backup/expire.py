"""Retention: plan what goes, and apply a plan that is still true."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from lifeboat.operations.installation import Installation
from lifeboat.operations.leases import claim, labels_in_use, writing_lock
from lifeboat.operations.pgbackrest.repository import expire_in_repository, refuse_expiry_in_repository
from lifeboat.operations.recording import best_effort
from lifeboat.operations.results import ExpiryReport
from lifeboat.retention.expiry import candidates_of, expire_backups, finish_interrupted
from lifeboat.retention.policy import ExpiryPlan, Rules, plan_expiry
from lifeboat.storage.manifest import Manifest
from lifeboat.storage.repository import BackupRepository


def plan_retention(
    installation: Installation, destination: str | None = None, *, claimed: Sequence[str] = ()
) -> ExpiryPlan:
    """What retention would do at a destination now; changes nothing. Labels in `claimed` are held by the caller."""
    repository = installation.repository(destination)
    retention = installation.settings.retention
    return plan_expiry(
        repository.destination.name,
        candidates_of(repository, set(labels_in_use(installation, repository)) - set(claimed)),
        Rules(retention.keep_last, retention.keep_days),
        datetime.now(UTC),
    )


def apply_retention(installation: Installation, plan: ExpiryPlan, *, flow_run_id: UUID | None = None) -> ExpiryReport:
    """Expire what the plan says, unless storage has changed since; remove what killed runs left.

    Raises PlanOutdated, DestinationBusy while another expiry works at the destination, and where pgBackRest keeps the
    backups ExpiryRefused, and RepositoryBusy while it takes one.
    """
    repository = installation.writable_repository(plan.destination)
    claimed: list[str] = []
    with writing_lock(installation, repository):

        def expired(manifest: Manifest, at: datetime) -> None:
            with best_effort(f"the expiry of {manifest.label}"):
                installation.catalog.backups.mark_expired(manifest.id, at)
                installation.catalog.audit.append(
                    actor=f"flow-run {flow_run_id}" if flow_run_id else "lifeboat retention apply",
                    action="expire",
                    object=f"backup {manifest.label}",
                    before={"status": "completed", "size_bytes": manifest.size_bytes},
                    after={"status": "expired", "plan": plan.plan_hash},
                )

        def again() -> ExpiryPlan:
            return plan_retention(installation, plan.destination, claimed=claimed)

        def alone(label: str) -> AbstractContextManager[bool]:
            claimed[:] = [label]
            return claim(installation, repository, label)

        there = set(repository.labels())
        going = [d.candidate.label for d in plan.expired if d.candidate.label in there]
        refuse_expiry_in_repository(installation, repository, [repository.manifest(label) for label in going])
        gone = set(expire_backups(repository, plan, again, alone, expired)) | set(finish_interrupted(repository))
        expire_in_repository(installation, repository)
        removed = _remove_unfinished(installation, repository)
    return ExpiryReport(
        plan_hash=plan.plan_hash,
        kept=[(d.candidate.label, "; ".join(d.reasons)) for d in plan.kept],
        expired=[(d.candidate.label, "; ".join(d.reasons)) for d in plan.expired if d.candidate.label in gone],
        removed_unfinished=removed,
        freed_bytes=sum(d.candidate.size_bytes for d in plan.expired if d.candidate.label in gone),
        applied=True,
    )


def _remove_unfinished(installation: Installation, repository: BackupRepository) -> list[str]:
    oldest = datetime.now(UTC) - timedelta(hours=installation.settings.retention.unfinished_hours)
    stale = [label for label in repository.unfinished_labels() if _started_at(label) < oldest]
    return [label for label in stale if repository.remove_unfinished(label)]


def _started_at(label: str) -> datetime:
    stamp = label.rpartition("_")[2][:15]
    return datetime.strptime(stamp, "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
