"""`index.json`, the table of contents at the front of a configuration archive. The format is versioned."""

from typing import Annotated, Literal

from pydantic import Field

from lifeboat.errors import PermanentError
from lifeboat.storage.manifest import ObjectName, Sha256, StrictModel

FORMAT_VERSION = 1
INDEX_NAME = "index.json"
ARCHIVE_NAME = "configuration.tar.gz"
RESTORE_SQL_NAME = "restore.sql"
REDACTED = "***REDACTED***"

Source = Literal["query", "folder", "server", "roles", "lifeboat"]
FileKind = Literal["file", "link", "directory"]


class ConfigurationError(PermanentError):
    """The configuration cannot be exported, read or applied as asked."""


class Finding(StrictModel):
    """Something about one item that an administrator should know or do."""

    section: str
    item: str
    problem: str
    hint: str


class Redaction(StrictModel):
    """A value that was replaced by `***REDACTED***`: field is a path such as `settings.smtp.password`."""

    section: str
    item: str
    field: str


class FileRecord(StrictModel):
    """One file, link or directory: path below the section, mode, and size in bytes and SHA-256 or the link's target."""

    path: ObjectName
    kind: FileKind = "file"
    mode: int = Field(ge=0, le=0o7777)
    size_bytes: int = Field(0, ge=0)
    sha256: Sha256 | None = None
    target: str | None = None


class Target(StrictModel):
    """The table that rows are written to.

    `columns` can be written; `json_columns` names the type (json or jsonb) of some, `text_columns` take any text, and
    `sequences` maps columns to the sequence (`schema.name`, quoted where needed) that numbers them.
    """

    schema_name: str
    table_name: str
    columns: list[str]
    json_columns: dict[str, Literal["json", "jsonb"]] = {}
    text_columns: list[str] = []
    identity_columns: list[str] = []
    sequences: dict[str, str] = {}


class SectionIndex(StrictModel):
    """One section: where it came from and what it holds. `columns` maps a column to its PostgreSQL type."""

    source: Source
    kind: str
    item_count: int = Field(ge=0)
    sha256: Sha256 | None = None
    columns: dict[str, str] = {}
    key_columns: list[str] = []
    target: Target | None = None
    path: str | None = None
    files: list[FileRecord] = []

    @property
    def has_files(self) -> bool:
        """Whether the section holds files rather than rows."""
        return self.source in {"folder", "server"}


class ArchiveIndex(StrictModel):
    """The whole table of contents. It names no time: the same configuration gives the same bytes."""

    format: Literal["lifeboat-configuration"] = "lifeboat-configuration"
    format_version: int = FORMAT_VERSION
    lifeboat_version: str
    database: str
    server_version: str
    sections: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")], SectionIndex]
    restore_sql_sha256: Sha256 | None = None
    redacted: list[Redaction] = []
    findings: list[Finding] = []

    @property
    def item_count(self) -> int:
        """Items of all sections."""
        return sum(section.item_count for section in self.sections.values())

    def counts_by_kind(self) -> dict[str, int]:
        """Items per kind of configuration, in the order of the sections."""
        counts: dict[str, int] = {}
        for section in self.sections.values():
            counts[section.kind] = counts.get(section.kind, 0) + section.item_count
        return counts
