"""What an administrator reads about a finished backup, with the commands that bring it back."""

from lifeboat.operations.results import BackupTaken
from lifeboat.storage.manifest import Fingerprint, Manifest
from tasks.figures import count_text, duration_text, markdown_table, size_text, time_text
from tasks.restore_commands import restore_lines

_LARGEST_TABLES = 15


def backup_report(taken: BackupTaken, manifest: Manifest) -> str:
    """A Markdown page: what, where, how large, how long, what proves it, how to restore it."""
    parts = [f"# {taken.type.capitalize()} backup {taken.label}", _facts(taken, manifest), "## Time", _phases(taken)]
    if manifest.fingerprint is not None:
        parts += ["## Fingerprint", _fingerprint(manifest.fingerprint)]
    parts += ["## Restore with stock tools", _tools(manifest), _restore(taken, manifest)]
    return "\n\n".join(parts)


def _facts(taken: BackupTaken, manifest: Manifest) -> str:
    facts: list[tuple[str, object]] = [
        ("label", f"`{taken.label}`"),
        ("id", f"`{taken.id}`"),
        ("set", f"`{manifest.set_id}`"),
        ("engine", taken.engine),
        ("where", f"`{taken.location}`"),
        ("size", f"{size_text(taken.size_bytes)} in {count_text(len(manifest.objects), 'object')}"),
        ("builds on", f"`{manifest.parent_label}`" if manifest.parent_label else "nothing"),
        ("PostgreSQL", manifest.pg_version or "unknown"),
        ("WAL", _wal(manifest)),
        ("manifest SHA-256", f"`{taken.manifest_sha256}`"),
        ("proven by a restore drill", "not yet"),
    ]
    items = manifest.details.get("items")
    if isinstance(items, dict):
        facts.append(("items", ", ".join(f"{count} {kind}" for kind, count in items.items())))
    if taken.reason:
        facts.append(("note", taken.reason))
    return markdown_table(("what", "value"), facts)


def _wal(manifest: Manifest) -> str:
    if manifest.stop_lsn is None:
        return "none needed"
    return f"{manifest.start_lsn} to {manifest.stop_lsn}, timeline {manifest.timeline}"


def _phases(taken: BackupTaken) -> str:
    lines: list[tuple[str, str]] = [(name, duration_text(seconds)) for name, seconds in taken.phases.items()]
    lines.append(("from label to manifest", duration_text(taken.duration_seconds)))
    if taken.fingerprint_seconds is not None:
        lines.append(("fingerprint, beside the rest", duration_text(taken.fingerprint_seconds)))
    span = f"{time_text(taken.started_at)} to {time_text(taken.completed_at)}"
    return f"{span}\n\n{markdown_table(('phase', 'duration'), lines)}"


def _fingerprint(fingerprint: Fingerprint) -> str:
    rows = sum(table.row_count or 0 for table in fingerprint.tables)
    hashed = sum(table.content_hash is not None for table in fingerprint.tables)
    words = (
        f"Database `{fingerprint.database}`: {len(fingerprint.tables)} tables with {rows:,} rows, the content of "
        f"{hashed} hashed; {len(fingerprint.objects)} definitions, schema `{fingerprint.schema_sha256[:16]}…`."
    )
    largest = sorted(fingerprint.tables, key=lambda table: table.size_bytes, reverse=True)[:_LARGEST_TABLES]
    lines = [(table.qualified_name, f"{table.row_count or 0:,}", size_text(table.size_bytes)) for table in largest]
    return f"{words}\n\n{markdown_table(('largest tables', 'rows', 'size'), lines)}"


def _tools(manifest: Manifest) -> str:
    needs = ", ".join(f"{name} ≥ {lowest}" if lowest != "any" else name for name, lowest in manifest.tools.items())
    return f"Needs {needs or 'nothing but a shell'}; neither Lifeboat nor Prefect."


def _restore(taken: BackupTaken, manifest: Manifest) -> str:
    return "\n".join(["```sh", *restore_lines(manifest, taken.location), "```"])
