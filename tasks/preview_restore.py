"""Previews a restore."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.operations.installation import LOG
from lifeboat.operations.preview import quick as operation
from tasks.figures import count_text
from tasks.preview_report import preview_report
from tasks.publishing import publish_markdown
from tasks.retrying import TRANSIENT_ONLY
from tasks.work import at_work


@task(name="preview-restore", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def preview_restore(order: operation.PreviewOrder) -> operation.RestorePreview:
    """Say what a restore would undo, and publish it; nothing is restored."""
    with at_work() as work:
        preview = operation.preview_restore(work.installation, order)
        lost = preview.transactions.count if preview.transactions is not None else 0
        title = f"{preview.target}: {count_text(lost, 'transaction')} lost, {count_text(len(preview.tables), 'table')}"
        LOG.info("preview of %s", title)
        publish_markdown("restore-preview", preview_report(preview), title)
    return preview
