"""What the demo's recovery is held against: the rows that were there before the accident."""

from collections.abc import Mapping
from dataclasses import dataclass

from lifeboat.demo.accident import DROPPED, EMPTIED, EMPTIED_TOO, TableContent
from lifeboat.operations.preview.quick import RestorePreview
from lifeboat.recovery.undoing import Change
from lifeboat.wal.activity.notable import EventKind


@dataclass(frozen=True)
class Undone:
    """What a preview says of the accident: rows, and whether the dropped table comes back."""

    dropped_rows: int | None
    deleted: Mapping[str, int]
    comes_back: bool

    @classmethod
    def of(cls, preview: RestorePreview) -> "Undone":
        """Read it off the preview's tables and objects."""
        dropped = [each for each in preview.tables if each.table == DROPPED and EventKind.DROP.value in each.events]
        # Rows of a partitioned table are its partitions', whose names begin like its own.
        deleted = {
            name: sum(each.deleted_rows for each in preview.tables if each.table.startswith(name))
            for name in (EMPTIED, EMPTIED_TOO)
        }
        comes_back = any(each.name == DROPPED and each.change is Change.COMES_BACK for each in preview.objects)
        return cls(dropped[0].rows_at_target if dropped else None, deleted, comes_back)

    def faults(self, before: Mapping[str, TableContent]) -> list[str]:
        """Where it is wrong."""
        faults = [
            f"of {before[name].rows} deleted rows of {name} it knows {rows}"
            for name, rows in self.deleted.items()
            if rows != before[name].rows
        ]
        if not self.dropped_rows:
            # WAL does not tell how many rows a dropped table had: the preview estimates it, and says so.
            faults.append(f"of the dropped {DROPPED} it knows no rows")
        return faults if self.comes_back else [*faults, f"it does not say that {DROPPED} comes back"]


def lost_rows(found: Mapping[str, TableContent], before: Mapping[str, TableContent]) -> list[str]:
    """Which tables are not what they were, in rows or in content."""
    return [
        f"{name} had {content.rows} rows ({content.md5}), and {_told(found.get(name))}"
        for name, content in before.items()
        if found.get(name) != content
    ]


def _told(content: TableContent | None) -> str:
    return f"has {content.rows} ({content.md5})" if content is not None else "is not there"
