"""What an asset check finds and reports."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

REPORTED_FINDINGS_MAX = 1000


class FindingKind(StrEnum):
    """What is wrong with a file."""

    MISSING = "missing"
    CORRUPT = "corrupt"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that is not what the database says; figures that were not measured are None.

    The expected figures are the database's. A file of another size is not read: it has no actual checksum.
    """

    asset_id: str
    asset_kind: str
    path: str
    kind: FindingKind
    detail: str
    expected_size_bytes: int | None = None
    actual_size_bytes: int | None = None
    expected_sha256: str | None = None
    actual_sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.path} (asset {self.asset_id}, {self.asset_kind}): {self.kind}, {self.detail}"

    def as_json(self) -> dict[str, Any]:
        """Plain values for a journal or an artifact."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The finding that `as_json` wrote; raises TypeError, ValueError or KeyError for anything else."""
        return cls(**{**values, "kind": FindingKind(values["kind"])})


@dataclass(frozen=True, slots=True)
class AssetProgress:
    """How far a check is; `bytes_checked` counts bytes read, those of files not yet finished too."""

    checked: int
    bytes_checked: int
    findings: int
    elapsed_seconds: float


@dataclass(frozen=True)
class AssetReport:
    """The result of one check over all its stops and goes.

    `checked` counts records, `bytes_checked` the bytes read from files and hashed, once where a file was read
    again to be sure. `findings` holds the first 1,000; `on_finding` saw them all. `without_checksum` counts records
    without a SHA-256: their files were read to the end, and their size compared where the database has one.
    """

    started_at: datetime
    completed_at: datetime
    duration_seconds: float
    checked: int
    bytes_checked: int
    without_checksum: int
    missing: int
    corrupt: int
    unreadable: int
    findings: tuple[Finding, ...]
    resumed: bool
    sample_fraction: float = 1.0

    @property
    def total_findings(self) -> int:
        """Missing, corrupt and unreadable files together."""
        return self.missing + self.corrupt + self.unreadable

    @property
    def sound(self) -> bool:
        """Whether every checked file is what the database says."""
        return self.total_findings == 0
