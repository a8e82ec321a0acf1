"""`restore.sql` in the archive: psql alone writes the rows back with it."""

from collections.abc import Sequence

from psycopg import sql

from lifeboat.configuration.index import REDACTED, ArchiveIndex, SectionIndex, Target

_HEAD = """\
-- Writes the rows of this configuration archive back with psql (15 or later) alone: nothing is removed.
-- In the folder where the archive was unpacked:
--   psql -X -v ON_ERROR_STOP=1 --single-transaction -d "$DATABASE" -f restore.sql
-- A value that was redacted stays as it is in the database; in a new row it is the text {redacted}.
\\encoding UTF8
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, YMD';
SET lc_monetary = 'C';
SET CONSTRAINTS ALL DEFERRED;
"""


def restore_sql(index: ArchiveIndex) -> str:
    """The script for all sections that have a table, in the order of the sections: parents first."""
    parts = [_HEAD.format(redacted=REDACTED)]
    for name, section in index.sections.items():
        if section.target is not None:
            parts.append(_statement(index, name, section, section.target))
    return "\n".join(parts)


def source_columns(target: Target, columns: Sequence[str]) -> sql.Composable:
    """Columns of the rows `r` (json_populate_record) of the JSON array `item.value`, JSON ones taken as they stand.

    json_populate_record turns JSON's null into NULL; `->` keeps it, and gives NULL only where the name is absent.
    """
    return sql.SQL(", ").join(
        sql.SQL("(item.value OPERATOR(pg_catalog.->) {0}::text)::pg_catalog.{1} AS {2}").format(
            sql.Literal(column), sql.Identifier(target.json_columns[column]), sql.Identifier(column)
        )
        if column in target.json_columns
        else sql.SQL("r.{}").format(sql.Identifier(column))
        for column in columns
    )


def _statement(index: ArchiveIndex, name: str, section: SectionIndex, target: Target) -> str:
    table = sql.Identifier(target.schema_name, target.table_name)
    redacted = {each.field.partition(".")[0].partition("[")[0] for each in index.redacted if each.section == name}
    merge = sql.SQL(
        "MERGE INTO {table} AS live\nUSING (\n  SELECT {columns}\n"
        "  FROM pg_catalog.json_array_elements({cleaned}) AS item(value),\n"
        "       pg_catalog.json_populate_record(NULL::{table}, {populated}) AS r\n"
        ") AS archived\nON {match}\n{update}"
        "WHEN NOT MATCHED THEN INSERT ({names}) OVERRIDING SYSTEM VALUE VALUES ({values});\n"
    ).format(
        table=table,
        columns=source_columns(target, target.columns),
        cleaned=sql.SQL(":'content'::json"),
        populated=_populated(redacted - set(target.text_columns)),
        match=_joined(" AND ", "live.{0} = archived.{0}", section.key_columns),
        update=_update(section, target, redacted),
        names=_joined(", ", "{0}", target.columns),
        values=_joined(", ", "archived.{0}", target.columns),
    )
    numbering = "".join(f"{statement.as_string(None)};\n" for statement in raise_sequences(target))
    return f"\\echo {name}\n\\set content `cat sections/{name}.json`\n{merge.as_string(None)}{numbering}"


def _populated(unfit: set[str]) -> sql.Composable:
    """The item, without the placeholders that a column's type would not take."""
    if not unfit:
        return sql.SQL("item.value")
    return sql.SQL(
        "(SELECT pg_catalog.json_object_agg(f.key, f.value) FROM pg_catalog.json_each(item.value) AS f"
        " WHERE f.key NOT IN ({names}) OR pg_catalog.strpos(f.value::text, {marker}) = 0)"
    ).format(names=sql.SQL(", ").join(sql.Literal(each) for each in sorted(unfit)), marker=sql.Literal(REDACTED))


def _update(section: SectionIndex, target: Target, redacted: set[str]) -> sql.Composable:
    # A generated identity cannot be set; as a part of the key it is equal anyway.
    fixed = {*section.key_columns, *target.identity_columns}
    settings = [
        _kept(column, column in target.text_columns)
        if column in redacted
        else _joined("", "{0} = archived.{0}", [column])
        for column in target.columns
        if column not in fixed
    ]
    if not settings:
        return sql.SQL("")
    return sql.SQL("WHEN MATCHED THEN UPDATE SET {}\n").format(sql.SQL(", ").join(settings))


def _kept(column: str, holds_text: bool) -> sql.Composable:
    if not holds_text:
        return _joined("", "{0} = coalesce(archived.{0}, live.{0})", [column])
    return sql.SQL(
        "{0} = CASE WHEN pg_catalog.strpos(archived.{0}::text, {1}) > 0 THEN live.{0} ELSE archived.{0} END"
    ).format(sql.Identifier(column), sql.Literal(REDACTED))


def raise_sequences(target: Target) -> list[sql.Composed]:
    """Statements after which no number that was written is given out again; no sequence is ever set back."""
    return [
        sql.SQL(
            "SELECT pg_catalog.setval({sequence}::pg_catalog.regclass,"
            " greatest(pg_catalog.max({column}), pg_catalog.pg_sequence_last_value({sequence}::pg_catalog.regclass)))"
            " FROM {table} HAVING pg_catalog.max({column}) IS NOT NULL"
        ).format(
            sequence=sql.Literal(sequence),
            column=sql.Identifier(column),
            table=sql.Identifier(target.schema_name, target.table_name),
        )
        for column, sequence in target.sequences.items()
    ]


def _joined(between: str, form: str, columns: list[str]) -> sql.Composable:
    return sql.SQL(between).join(sql.SQL(form).format(sql.Identifier(column)) for column in columns)
