"""How a table can be written: its columns, which of them are JSON, identity or generated, and who refers to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from lifeboat.configuration.index import ConfigurationError, Target

_COLUMNS = """
SELECT a.attname AS name,
       coalesce(e.typcategory, b.typcategory) = 'S'
         OR b.oid IN ('json'::pg_catalog.regtype, 'jsonb'::pg_catalog.regtype) AS holds_text,
       CASE b.oid WHEN 'json'::pg_catalog.regtype THEN 'json'
                  WHEN 'jsonb'::pg_catalog.regtype THEN 'jsonb' END AS json_type,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS is_required,
       a.attidentity <> '' AS is_identity, a.attgenerated <> '' AS is_generated
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_catalog.pg_type e ON b.typcategory = 'A' AND e.oid = b.typelem
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

# A sequence belongs to a column (identity, serial) or is merely named in its default.
_SEQUENCES = """
SELECT DISTINCT s.relname, n.nspname, a.attname
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
JOIN pg_catalog.pg_depend d ON
     (d.classid = 'pg_catalog.pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
      AND d.deptype IN ('a', 'i'))
  OR (d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = ad.oid)
JOIN pg_catalog.pg_class s ON s.relkind = 'S'
     AND s.oid = CASE WHEN d.classid = 'pg_catalog.pg_class'::regclass THEN d.objid ELSE d.refobjid END
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
WHERE a.attrelid = %s AND a.attnum > 0
ORDER BY 1, 2, 3
"""

_REFERENCES = """
SELECT n.nspname, c.relname,
       (SELECT pg_catalog.array_agg(a.attname ORDER BY k.place)
        FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY k(num, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.num) AS columns,
       (SELECT pg_catalog.array_agg(a.attname ORDER BY k.place)
        FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY k(num, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.num) AS referenced
FROM pg_catalog.pg_constraint f
JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.confrelid = %s AND f.conparentid = 0
ORDER BY 1, 2, f.conname
"""


@dataclass(frozen=True)
class Column:
    """One column; `is_required`: an INSERT without it fails; `holds_text`: any string will do, a placeholder too."""

    name: str
    holds_text: bool
    json_type: Literal["json", "jsonb"] | None
    is_required: bool
    is_identity: bool
    is_generated: bool


@dataclass(frozen=True)
class Reference:
    """A foreign key from another table (or the same) to this one."""

    schema_name: str
    table_name: str
    columns: tuple[str, ...]
    referenced: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One table as it is now."""

    oid: int
    schema_name: str
    table_name: str
    columns: Mapping[str, Column]
    sequences: Mapping[str, str]
    references: tuple[Reference, ...]

    @property
    def qualified_name(self) -> str:
        """`schema.table`, as people write it."""
        return f"{self.schema_name}.{self.table_name}"

    @property
    def identifier(self) -> sql.Identifier:
        """The table's name for a statement."""
        return sql.Identifier(self.schema_name, self.table_name)


def describe_table(connection: psycopg.Connection[Any], name: str) -> Table:
    """Look a table up by `table` (on the search path) or `schema.table`. Raises ConfigurationError if there is none."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(
            "SELECT c.oid, n.nspname, c.relname, c.relkind FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(%s)",
            [name],
        ).fetchone()
        if found is None or found[3] not in {"r", "p"}:
            raise ConfigurationError(
                f"there is no table {name} to write configuration to",
                hint="Correct `table` in the section's settings, or run the platform's migrations first.",
            )
        oid = found[0]
        sequences = cursor.execute(_SEQUENCES, [oid]).fetchall()
        references = cursor.execute(_REFERENCES, [oid]).fetchall()
    with connection.cursor(row_factory=dict_row) as cursor:
        columns = [Column(**row) for row in cursor.execute(_COLUMNS, [oid])]
    return Table(
        oid=oid,
        schema_name=found[1],
        table_name=found[2],
        columns={column.name: column for column in columns},
        sequences={column: sql.Identifier(schema, name).as_string(None) for name, schema, column in sequences},
        references=tuple(Reference(s, t, tuple(ours), tuple(theirs)) for s, t, ours, theirs in references),
    )


def target_of(section: str, table: Table, columns: Sequence[str], key_columns: Sequence[str]) -> Target:
    """What of a section can be written to a table. Raises ConfigurationError where a column is not in the table."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ConfigurationError(
            f"the section {section} has the column {missing[0]}, which {table.qualified_name} has not",
            hint="Take it out of the query, or give the section no `table` if it is only to be shown.",
        )
    generated = [name for name in key_columns if table.columns[name].is_generated]
    if generated:
        raise ConfigurationError(
            f"the key column {generated[0]} of the section {section} is generated and cannot be written",
            hint="Choose the columns that it is generated from.",
        )
    usable = [table.columns[name] for name in columns if not table.columns[name].is_generated]
    return Target(
        schema_name=table.schema_name,
        table_name=table.table_name,
        columns=[column.name for column in usable],
        json_columns={column.name: column.json_type for column in usable if column.json_type is not None},
        text_columns=[column.name for column in usable if column.holds_text],
        identity_columns=[column.name for column in usable if column.is_identity],
        sequences={name: text for name, text in table.sequences.items() if name in columns},
    )
