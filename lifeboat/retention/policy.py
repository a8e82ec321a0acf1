"""What a retention plan says of each backup, and why; pure, so that it can be tested against every case."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from lifeboat.storage.manifest import BackupType

_CHAINED = {BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL}


class Verdict(StrEnum):
    """Whether a backup stays."""

    KEEP = "keep"
    EXPIRE = "expire"


@dataclass(frozen=True)
class Candidate:
    """What the planner knows of one backup.

    `in_use` means that a restore, drill or copy reads it now; `failed` that its last restore drill did.
    """

    id: UUID
    label: str
    type: BackupType
    engine: str
    set_id: UUID
    parent_label: str | None
    completed_at: datetime
    size_bytes: int
    verified: bool = False
    pinned: bool = False
    suspect: bool = False
    in_use: bool = False
    failed: bool = False


@dataclass(frozen=True)
class Rules:
    """Keep the `keep_last` newest of each kind and everything younger than `keep_days`."""

    keep_last: int
    keep_days: int


@dataclass(frozen=True)
class Decision:
    """One line of a plan."""

    candidate: Candidate
    verdict: Verdict
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ExpiryPlan:
    """Decisions for all backups of a destination, oldest first, and in which order the expired ones go."""

    destination: str
    decisions: tuple[Decision, ...]

    @property
    def expired(self) -> list[Decision]:
        """What goes, dependents before what they depend on, so that an interruption leaves only whole chains."""
        parents = {d.candidate.label: d.candidate.parent_label for d in self.decisions}
        going = [decision for decision in self.decisions if decision.verdict is Verdict.EXPIRE]
        return sorted(going[::-1], key=lambda decision: _depth(decision.candidate.label, parents), reverse=True)

    @property
    def kept(self) -> list[Decision]:
        """What stays."""
        return [decision for decision in self.decisions if decision.verdict is Verdict.KEEP]

    @property
    def freed_bytes(self) -> int:
        """The bytes that come back."""
        return sum(decision.candidate.size_bytes for decision in self.expired)

    @property
    def plan_hash(self) -> str:
        """A hash of what goes and what stays: an approval is bound to it."""
        lines = [[str(d.candidate.id), d.candidate.label, d.verdict.value] for d in self.decisions]
        return hashlib.sha256(json.dumps([self.destination, lines]).encode()).hexdigest()


def plan_expiry(destination: str, candidates: Iterable[Candidate], rules: Rules, now: datetime) -> ExpiryPlan:
    """Decide over every backup: first what the rules and guards keep, then what those depend on.

    The guards hold whatever the rules say: the last verified backup of each kind, the newest one of each kind,
    pinned ones, suspect ones (evidence), ones in use, and everything that a kept backup depends on.
    """
    ordered = sorted(candidates, key=lambda item: (item.completed_at, item.label))
    reasons: dict[str, list[str]] = {item.label: [] for item in ordered}
    for item in ordered:
        reasons[item.label] += _own_reasons(item, rules, now)
    for group in _groups(ordered):
        _guard_group(group, rules, reasons)
    _keep_parents(ordered, reasons)
    _keep_sets(ordered, reasons)
    decisions = [
        Decision(
            item,
            Verdict.KEEP if reasons[item.label] else Verdict.EXPIRE,
            tuple(reasons[item.label] or ["no rule keeps it"]),
        )
        for item in ordered
    ]
    return ExpiryPlan(destination, tuple(decisions))


def _own_reasons(item: Candidate, rules: Rules, now: datetime) -> list[str]:
    facts = {
        "pinned": item.pinned,
        "suspect: kept until somebody clears it": item.suspect,
        "in use": item.in_use,
        f"younger than {rules.keep_days} days": item.completed_at > now - timedelta(days=rules.keep_days),
    }
    return [reason for reason, holds in facts.items() if holds]


def _groups(ordered: Sequence[Candidate]) -> list[list[Candidate]]:
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for item in ordered:
        kind = "physical" if item.type in _CHAINED else item.type.value
        groups.setdefault((item.engine, kind), []).append(item)
    return list(groups.values())


def _guard_group(group: list[Candidate], rules: Rules, reasons: dict[str, list[str]]) -> None:
    whole = [item for item in group if item.parent_label is None]
    # Backups known to be bad fill no place, unless there are no others.
    heads = [item for item in whole if not item.failed] or whole
    for item in heads[-rules.keep_last :]:
        reasons[item.label].append(f"one of the {rules.keep_last} newest")
    # A suspect or failed backup must not stand in for the last good one.
    sound = [item for item in group if not item.suspect and not item.failed] or group
    if sound:
        reasons[sound[-1].label].append("the newest of its kind")
    verified = [item for item in sound if item.verified]
    if verified:
        reasons[verified[-1].label].append("the last verified one")


def _depth(label: str, parents: Mapping[str, str | None]) -> int:
    depth, current = 0, parents.get(label)
    while current is not None and depth <= len(parents):
        depth, current = depth + 1, parents.get(current)
    return depth


def _keep_parents(ordered: Sequence[Candidate], reasons: dict[str, list[str]]) -> None:
    # By depth and not by time: clocks of hosts differ, chains do not.
    parents = {item.label: item.parent_label for item in ordered}
    for item in sorted(ordered, key=lambda item: _depth(item.label, parents), reverse=True):
        if item.parent_label in reasons and reasons[item.label]:
            reasons[item.parent_label].append(f"{item.label} depends on it")


def _keep_sets(ordered: Sequence[Candidate], reasons: dict[str, list[str]]) -> None:
    # A database without its configuration of the same moment is half a restore.
    kept_sets = {item.set_id for item in ordered if item.type is not BackupType.CONFIG and reasons[item.label]}
    for item in ordered:
        if item.type is BackupType.CONFIG and item.set_id in kept_sets:
            reasons[item.label].append("the configuration of a kept backup")
