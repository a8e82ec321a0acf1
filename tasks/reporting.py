"""Logs, publishes and announces what a run has done."""

import logging
from collections.abc import Mapping

from lifeboat.assets.findings import AssetReport
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.results import BackupTaken, DrillReport, ExpiryReport, ReconcileReport
from lifeboat.retention.policy import ExpiryPlan
from tasks.asset_report import asset_report, finding_rows
from tasks.backup_report import backup_report
from tasks.drill_report import drill_report, phase_rows, question_rows
from tasks.figures import duration_text, size_text
from tasks.publishing import announce, never_failing, publish_markdown, publish_table
from tasks.upkeep_report import decision_rows, expiry_report, reconcile_report


def report_backup(installation: Installation, taken: BackupTaken) -> None:
    """A finished backup."""
    size, duration = size_text(taken.size_bytes), duration_text(taken.duration_seconds)
    LOG.info("%s backup %s is complete: %s in %s at %s", taken.type, taken.label, size, duration, taken.location)
    with never_failing(f"report of {taken.label}"):
        manifest = installation.repository(taken.destination).manifest(taken.label)
        publish_markdown(f"{taken.type}-backup", backup_report(taken, manifest), f"{taken.label}: {size} in {duration}")
        facts = {
            "label": taken.label,
            "type": taken.type.value,
            "engine": taken.engine,
            "destination": taken.destination,
            "size_bytes": taken.size_bytes,
            "duration_seconds": taken.duration_seconds,
            "set_id": str(manifest.set_id),
            "reason": taken.reason,
        }
        _announce_backup("backup.completed", taken.id, taken.label, facts)


def report_drill(report: DrillReport) -> None:
    """A restore drill, passed or failed."""
    verdict = "passed" if report.passed else "FAILED"
    LOG.log(_level(report.passed), "restore drill of %s %s", report.label, verdict)
    publish_markdown("restore-drill", drill_report(report), f"{report.label} {verdict}")
    publish_table("restore-drill-phases", phase_rows(report), f"{report.label}: how long each phase took")
    if report.validations:
        publish_table("restore-drill-questions", question_rows(report), f"{report.label}: validation queries")
    facts = {
        "label": report.label,
        "target": report.target,
        "faults": report.faults[:20],
        "phases": report.phases,
        "drill_id": str(report.id),
    }
    event = "backup.verified" if report.passed else "drill.failed"
    _announce_backup(event, report.backup_id, report.label, facts)


def report_assets(report: AssetReport) -> None:
    """An asset check."""
    title = f"{report.checked:,} assets checked, {report.total_findings:,} findings"
    LOG.log(_level(report.sound), "%s in %s", title, duration_text(report.duration_seconds))
    publish_markdown("asset-verification", asset_report(report), title)
    for kind, rows in finding_rows(report).items():
        publish_table(f"{kind}-assets", rows, f"{kind} assets")
    counts = {"missing": report.missing, "corrupt": report.corrupt, "unreadable": report.unreadable}
    payload = {"checked": report.checked, "bytes_checked": report.bytes_checked, **counts}
    announce("assets.checked", kind="assets", identifier="all", name="assets", payload=payload)


def report_plan(plan: ExpiryPlan) -> None:
    """A retention plan, before anything goes."""
    title = f"{len(plan.kept)} kept, {len(plan.expired)} to expire at {plan.destination}"
    LOG.info("retention plan %s: %s, %s come back", plan.plan_hash[:12], title, size_text(plan.freed_bytes))
    publish_table("retention-plan", decision_rows(plan), title)


def report_expiry(destination: str, report: ExpiryReport) -> None:
    """What retention took away."""
    gone = f"{len(report.expired)} expired, {size_text(report.freed_bytes)} freed at {destination}"
    LOG.info("retention: %s", gone)
    publish_markdown("retention", expiry_report(destination, report), gone)
    labels = [label for label, _ in report.expired]
    payload = {"plan_hash": report.plan_hash, "expired": labels, "freed_bytes": report.freed_bytes}
    announce("retention.applied", kind="destination", identifier=destination, name=destination, payload=payload)


def report_reconciling(report: ReconcileReport) -> None:
    """What reconciling repaired; a run that found all in order leaves no page."""
    repairs = len(report.repaired) + len(report.adopted)
    repairs += len(report.removed_scratch) + len(report.removed_databases) + len(report.annotations)
    if repairs or report.missing_in_storage or report.unread:
        missing, unread = len(report.missing_in_storage), len(report.unread)
        title = f"{repairs} repaired, {missing} missing in storage, {unread} destinations not read"
        LOG.warning("reconciling: %s", title)
        publish_markdown("reconcile", reconcile_report(report), title)
    for label in report.missing_in_storage:
        announce("backup.missing", kind="backup", identifier=label, name=label, payload={"label": label})


def _announce_backup(event: str, identifier: object, label: str, payload: Mapping[str, object]) -> None:
    announce(event, kind="backup", identifier=identifier, name=label, payload=payload)


def _level(good: bool) -> int:
    return logging.INFO if good else logging.ERROR
