"""Differences and plans as plain data, for programs that read `--json`; like the lines, without secrets."""

from collections.abc import Iterable
from typing import Any

from lifeboat.configuration.content import FileItem, label_of
from lifeboat.configuration.diff import ConfigurationDiff, FieldChange, FileChange, SectionDiff
from lifeboat.configuration.plan import ApplyPlan, FileAction, FilesPlan, RowsPlan


def diff_structure(diff: ConfigurationDiff) -> dict[str, Any]:
    """What differs: `added_sections`, `removed_sections`, and `sections` with their items, fields and files.

    Values are JSON texts, null where a side has none.
    """
    return {
        "added_sections": list(diff.added_sections),
        "removed_sections": list(diff.removed_sections),
        "sections": [_section(section) for section in diff.sections],
    }


def plan_structure(plan: ApplyPlan) -> dict[str, Any]:
    """What applying does: `tables` and `folders` with their changes, `notes`, and `by_hand`: what people have to do."""
    return {
        "tables": [_table(rows) for rows in plan.rows],
        "folders": [_folder(files) for files in plan.files],
        "notes": [note.model_dump() for note in plan.notes],
        "by_hand": [{"title": step.title, "lines": list(step.lines)} for step in plan.by_hand],
    }


def _section(section: SectionDiff) -> dict[str, Any]:
    return {
        "name": section.name,
        "kind": section.kind,
        "added": list(section.added),
        "removed": list(section.removed),
        "changed": [{"item": item.item, "fields": _fields(item.fields)} for item in section.changed],
        "changed_files": [_changed_file(file) for file in section.changed_files],
        "changed_types": _fields(section.changed_types),
    }


def _changed_file(change: FileChange) -> dict[str, Any]:
    return {"path": change.path, "old": _file(change.old), "new": _file(change.new), "text_diff": change.text_diff}


def _table(plan: RowsPlan) -> dict[str, Any]:
    return {
        "section": plan.section,
        "table": f"{plan.target.schema_name}.{plan.target.table_name}",
        "insert": [change.item for change in plan.inserts],
        "update": [{"item": change.item, "fields": _fields(change.changes)} for change in plan.updates],
        "remove": [label_of(key) for key in plan.removals],
        "unchanged": plan.unchanged_count,
    }


def _folder(plan: FilesPlan) -> dict[str, Any]:
    return {
        "section": plan.section,
        "root": str(plan.root),
        "changes": [_action(action) for action in plan.actions],
        "unchanged": plan.unchanged_count,
    }


def _action(action: FileAction) -> dict[str, Any]:
    return {
        "action": action.action,
        "path": action.item.path,
        "now": None if action.now is None else _file(action.now),
        "then": None if action.action == "remove" else _file(action.item),
    }


def _file(item: FileItem) -> dict[str, Any]:
    return {**item.record.model_dump(exclude={"path"}), "mode": f"{item.mode:04o}"}


def _fields(changes: Iterable[FieldChange]) -> list[dict[str, Any]]:
    return [{"path": change.path, "old": change.old, "new": change.new} for change in changes]
