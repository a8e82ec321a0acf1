"""What an archive of the present could not bring back, once a plan is carried out; pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from lifeboat.configuration.content import Archive, label_of
from lifeboat.configuration.export import folder_reader
from lifeboat.configuration.filling import Filling, is_redacted
from lifeboat.configuration.jsontext import Row, parse, render
from lifeboat.configuration.plan import ApplyPlan, FileAction, FilesPlan, RowChange, RowsPlan
from lifeboat.configuration.plan_files import SET_ID_BITS
from lifeboat.configuration.redaction import Redactor
from lifeboat.settings.configuration import FolderSection


@dataclass(frozen=True)
class WayBackGaps:
    """Lines for people: `lost` is replaced or removed for good, `left` stays different in small; no values in them."""

    lost: tuple[str, ...]
    left: tuple[str, ...]


def find_gaps(plan: ApplyPlan, present: Archive) -> WayBackGaps:
    """What applying `present`, with pruning, would not restore after the plan."""
    lost = [line for files in plan.files for line in _lost_files(files, present)]
    for rows in plan.rows:
        lost += _removed_rows(rows, present)
        lost += _updated_rows(plan, rows, present)
    return WayBackGaps(tuple(lost), tuple(line for files in plan.files for line in _left_files(plan, files)))


def _lost_files(files: FilesPlan, present: Archive) -> Iterator[str]:
    archived = present.files(files.section)
    paths = {item.path for item in archived.files} if archived is not None else set()
    for action in files.actions:
        if action.now is not None and action.item.path not in paths:
            yield f"{files.section} {action.item.path} (an export leaves it out)"


def _left_files(plan: ApplyPlan, files: FilesPlan) -> Iterator[str]:
    for action in files.actions:
        why = _why_left(plan, files, action)
        if why is not None:
            yield f"{files.section} {action.item.path}: {why}"


def _why_left(plan: ApplyPlan, files: FilesPlan, action: FileAction) -> str | None:
    if action.now is not None:
        loses_bits = action.now.kind == "file" and action.now.mode & SET_ID_BITS
        return "its set-user-id or set-group-id bit is not set again" if loses_bits else None
    if action.item.kind == "directory":
        return "the folder is new and stays"
    section, settings = plan.settings.sections[files.section], plan.settings
    if isinstance(section, FolderSection):
        reader = folder_reader(files.section, section, settings, Redactor(settings.redact, settings.keep))
        if not reader.takes(action.item):
            return "the file is new and stays, because exports leave it out"
    return None


def _removed_rows(rows: RowsPlan, present: Archive) -> Iterator[str]:
    archived = _rows_by_key(rows, present)
    for key in rows.removals:
        row = archived.get(key)
        if row is None:
            yield f"{rows.section} {label_of(key)} (an export does not find it)"
            continue
        for column in rows.target.columns:
            if column in row and is_redacted(parse(row[column])):
                yield f"{rows.section} {label_of(key)} {column} (it is redacted in archives)"


def _updated_rows(plan: ApplyPlan, rows: RowsPlan, present: Archive) -> Iterator[str]:
    archived, content = _rows_by_key(rows, present), present.rows(rows.section)
    redactor = Redactor(plan.settings.redact, plan.settings.keep)
    for change in rows.updates:
        row = archived.get(change.key)
        if row is None or content is None:
            yield f"{rows.section} {change.item} (an export does not find it)"
            continue
        for column in change.columns:
            if column not in content.columns:
                yield f"{rows.section} {change.item} {column} (an export does not find it)"
            elif not _comes_back(redactor, change, column, row.get(column)):
                yield f"{rows.section} {change.item} {column} (it is redacted in archives)"


def _comes_back(redactor: Redactor, change: RowChange, column: str, archived: str | None) -> bool:
    """Whether the way back, which fills placeholders from what is live then, ends at what is live now."""
    if archived is None or not is_redacted(parse(archived)):
        return True
    before = change.before.get(column)
    restored = Filling(redactor.text).fill(column, archived, change.values.get(column))
    return before is not None and render(parse(restored)) == render(parse(before))


def _rows_by_key(rows: RowsPlan, present: Archive) -> dict[tuple[str, ...], Row]:
    content = present.rows(rows.section)
    return content.by_key() if content is not None and content.key_columns == rows.key_columns else {}
