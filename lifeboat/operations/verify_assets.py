"""Checks the asset files against the platform's database and keeps the findings in the catalog."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from lifeboat.assets.findings import AssetProgress, AssetReport, Finding
from lifeboat.assets.integrity import check_assets
from lifeboat.catalog.values import AssetProblem, SeenFinding
from lifeboat.errors import SettingsError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.recording import best_effort

_STORED_AT_ONCE = 500


def verify_installation_assets(
    installation: Installation,
    *,
    resume: bool = True,
    flow_run_id: UUID | None = None,
    on_progress: Callable[[AssetProgress], None] | None = None,
) -> AssetReport:
    """Check every asset, or go on where an interrupted check stopped; findings are in the report and the catalog.

    Raises SettingsError when settings name no assets, and what check_assets raises.
    """
    del flow_run_id
    settings = installation.settings.assets
    if not settings.configured:
        raise SettingsError(
            "settings name no assets to check", hint="Set `assets.roots` and `assets.query` in lifeboat.toml."
        )
    findings = _CatalogFindings(installation)
    report = check_assets(
        installation.source,
        settings.model_copy(update={"resume": settings.resume and resume}),
        _resume_path(installation),
        on_progress=on_progress,
        on_finding=findings.add,
    )
    findings.finish(report)
    return report


def _resume_path(installation: Installation) -> Path:
    folder = installation.settings.state_dir / "assets"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "check.json"


class _CatalogFindings:
    def __init__(self, installation: Installation) -> None:
        self._catalog = installation.catalog
        self._waiting: list[Finding] = []

    def add(self, finding: Finding) -> None:
        LOG.warning("asset %s", finding)
        self._waiting.append(finding)

    def finish(self, report: AssetReport) -> None:
        """Store all findings, and close those that a complete check has not seen again."""
        with best_effort(f"{len(self._waiting)} asset findings"):
            for first in range(0, len(self._waiting), _STORED_AT_ONCE):
                batch = self._waiting[first : first + _STORED_AT_ONCE]
                self._catalog.findings.upsert_open([_seen(finding) for finding in batch], report.completed_at)
            if report.sample_fraction == 1.0:
                self._catalog.findings.close_unseen(report.started_at, report.completed_at)


def _seen(finding: Finding) -> SeenFinding:
    return SeenFinding(
        asset_id=finding.asset_id,
        kind=finding.asset_kind,
        path=finding.path,
        finding=AssetProblem(finding.kind.value),
        expected_sha256=finding.expected_sha256,
        actual_sha256=finding.actual_sha256,
        detail=finding.detail,
    )
