"""What the configuration archive holds: queries, folders, the server's own files, and what counts as a secret."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from lifeboat.settings.base import AbsolutePath, Section

BUILT_IN_SECTIONS = frozenset({"server", "lifeboat", "postgres_roles"})
_QUERY = re.compile(r"\s*(?:select|with|values|table)\b", re.IGNORECASE)


def _one_query(sql: str) -> str:
    text = sql.strip().rstrip(";").rstrip()
    if not _QUERY.match(text):
        raise ValueError("the query does not start with SELECT, WITH, VALUES or TABLE")
    return text


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_regular_expression)]
SectionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class QuerySection(Section):
    """Rows of the platform's database: one item per row."""

    sql: Annotated[str, AfterValidator(_one_query)] = Field(
        description="Query whose rows are the items; a column that cannot be written back does not belong in it."
    )
    key_columns: tuple[str, ...] = Field(min_length=1, description="Columns that name an item and never change.")
    table: str | None = Field(
        None, description="Table that `config apply` writes the rows to; without one the section is only shown."
    )
    kind: str | None = Field(None, description="What listings count the section under; its own name by default.")


class FolderSection(Section):
    """Files of a folder, with their modes; symbolic links stay links and are never followed."""

    path: AbsolutePath = Field(description="The folder.")
    include: tuple[str, ...] = Field(
        ("**",), description="Globs of what is taken; one without a slash matches the name at any depth."
    )
    exclude: tuple[str, ...] = Field((), description="Globs of what is left out of that.")
    suspected_secrets: Literal["report", "refuse"] = Field(
        "report",
        description="What happens to a file that seems to carry a password or token: taken and reported, or not taken.",
    )
    kind: str | None = Field(None, description="What listings count the section under; its own name by default.")


def _tag(value: object) -> str:
    if isinstance(value, dict):
        return "folder" if "path" in value else "query"
    return "folder" if isinstance(value, FolderSection) else "query"


AnySection = Annotated[
    Annotated[QuerySection, Tag("query")] | Annotated[FolderSection, Tag("folder")], Discriminator(_tag)
]


class ConfigurationSettings(Section):
    """Section [configuration]."""

    sections: dict[SectionName, AnySection] = Field(
        default={}, description="What is exported, parents before children: `config apply` keeps this order."
    )
    search_path: tuple[str, ...] = Field(("public",), description="Schemas where the queries find their tables.")
    server_files: Literal["auto"] | tuple[AbsolutePath, ...] = Field(
        "auto", description="The server's own files: found by asking it, a list of paths, or [] for none."
    )
    roles: bool = Field(True, description="Whether PostgreSQL's roles are in the archive (never their passwords).")
    redact: tuple[Pattern, ...] = Field(
        (), description="Regular expressions of further setting names, in snake case, whose values are secret."
    )
    keep: tuple[Pattern, ...] = Field(
        (),
        description="Regular expressions of setting names, in snake case, whose values are no secrets in spite of it.",
    )
    max_file_bytes: int = Field(16 * 1024**2, gt=0, description="Largest single file that is taken.")
    max_total_bytes: int = Field(256 * 1024**2, gt=0, description="Largest archive, unpacked, that is written or read.")
    max_items: int = Field(100_000, gt=0, description="Most items that one section may have.")
    statement_timeout_seconds: float = Field(60, gt=0, description="Longest that one query may run.")

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        taken = BUILT_IN_SECTIONS & set(self.sections)
        if taken:
            raise ValueError(f"the section name {min(taken)!r} is Lifeboat's own: choose another")
        return self
