"""Plans, differences and tables of contents as lines of text."""

from collections.abc import Iterator

from lifeboat.configuration.content import label_of
from lifeboat.configuration.diff import ConfigurationDiff, FieldChange, FileChange
from lifeboat.configuration.index import ArchiveIndex, Finding
from lifeboat.configuration.plan import ApplyPlan, FilesPlan, RowsPlan

_VALUE_MAX_CHARACTERS = 200


def describe_index(index: ArchiveIndex) -> list[str]:
    """What an archive holds, and what an administrator should know of it."""
    lines = [f"configuration of {index.database}, PostgreSQL {index.server_version}, {index.item_count} items"]
    lines += [f"  {name}: {section.item_count} ({section.source})" for name, section in index.sections.items()]
    lines += [f"  redacted: {each.section} {each.item}, {each.field}" for each in index.redacted]
    return lines + [f"  {line}" for line in _findings(index.findings)]


def describe_diff(diff: ConfigurationDiff) -> list[str]:
    """What differs, section by section."""
    lines = [f"+ section {name}" for name in diff.added_sections]
    lines += [f"- section {name}" for name in diff.removed_sections]
    for section in diff.sections:
        lines.append(f"{section.name}:")
        lines += [f"  + {item}" for item in section.added]
        lines += [f"  - {item}" for item in section.removed]
        lines += [f"  type of {_change(change)}" for change in section.changed_types]
        for item in section.changed:
            lines.append(f"  ~ {item.item}")
            lines += [f"      {_change(change)}" for change in item.fields]
        for file in section.changed_files:
            lines += [f"  {line}" for line in _file_change(file)]
    return lines or ["no difference"]


def describe_plan(plan: ApplyPlan) -> list[str]:
    """Everything that applying would do, what it would not, and what is left to do by hand."""
    lines = [line for rows in plan.rows for line in _rows_plan(rows)]
    lines += [line for files in plan.files for line in _files_plan(files)]
    if plan.is_empty:
        lines.append("nothing to write")
    lines += _findings(plan.notes)
    for step in plan.by_hand:
        lines += [f"by hand: {step.title}", *(f"    {line}" for line in step.lines)]
    return [*lines, f"plan {plan.sha256}"]


def _rows_plan(plan: RowsPlan) -> Iterator[str]:
    counts = f"{len(plan.inserts)} to insert, {len(plan.updates)} to update, {len(plan.removals)} to remove"
    yield f"{plan.section}: {counts}, {plan.unchanged_count} unchanged"
    yield from (f"  + {change.item}" for change in plan.inserts)
    for change in plan.updates:
        yield f"  ~ {change.item}"
        yield from (f"      {_change(field)}" for field in change.changes)
    yield from (f"  - {label_of(key)}" for key in plan.removals)


def _files_plan(plan: FilesPlan) -> Iterator[str]:
    changes = "1 change" if len(plan.actions) == 1 else f"{len(plan.actions)} changes"
    yield f"{plan.section}: {changes} in {plan.root}, {plan.unchanged_count} unchanged"
    for action in plan.actions:
        sign = "-" if action.action == "remove" else "+" if action.now is None else "~"
        changed = action.now is not None and action.now.mode != action.item.mode
        modes = f" mode {action.now.mode:04o} → {action.item.mode:04o}" if action.now is not None and changed else ""
        yield f"  {sign} {action.item.path} ({action.item.kind}){modes}"


def _file_change(change: FileChange) -> Iterator[str]:
    yield f"~ {change.path}"
    if change.old.mode != change.new.mode:
        yield f"    mode {change.old.mode:04o} → {change.new.mode:04o}"
    if change.old.kind != change.new.kind or change.old.target != change.new.target:
        yield f"    {change.old.kind} {change.old.target or ''} → {change.new.kind} {change.new.target or ''}"
    if change.text_diff is not None:
        yield from (f"    {line}" for line in change.text_diff.splitlines())
    elif change.content_changed and change.new.kind == "file":
        yield f"    {change.old.record.sha256} → {change.new.record.sha256}"


def _change(change: FieldChange) -> str:
    return f"{change.path}: {_short(change.old)} → {_short(change.new)}"


def _short(text: str | None) -> str:
    if text is None:
        return "NULL"
    if len(text) <= _VALUE_MAX_CHARACTERS:
        return text
    return f"{text[:_VALUE_MAX_CHARACTERS]}… ({len(text)} characters)"


def _findings(findings: tuple[Finding, ...] | list[Finding]) -> list[str]:
    return [f"note: {each.section} {each.item}: {each.problem}. {each.hint}" for each in findings]
