"""Comparison of fingerprints: whatever differs is named, and nothing else.

The fingerprints are constructed without validation, which would take most of the time.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lifeboat.storage.manifest import Fingerprint, SchemaObject, TableFingerprint, TableKind
from lifeboat.verification.comparison import UNKNOWN_CATALOG, compare


def table(name: str, count: int | None = 10, content: str | None = "5", **more: Any) -> TableFingerprint:  # noqa: ANN401
    """A table in schema public."""
    facts: dict[str, Any] = {"kind": TableKind.ORDINARY, "size_bytes": 8192, "schema_name": "public", **more}
    return TableFingerprint.model_construct(table_name=name, row_count=count, content_hash=content, **facts)


def thing(kind: str, name: str, definition: str = "") -> SchemaObject:
    """A definition."""
    return SchemaObject.model_construct(kind=kind, name=name, sha256=hashlib.sha256(definition.encode()).hexdigest())


def fingerprint(*parts: TableFingerprint | SchemaObject, **more: Any) -> Fingerprint:  # noqa: ANN401
    """A fingerprint of tables and definitions; a table's own definition comes with it."""
    tables = [part for part in parts if isinstance(part, TableFingerprint)]
    objects = [part for part in parts if isinstance(part, SchemaObject)]
    objects += [thing("table", item.qualified_name) for item in tables]
    facts: dict[str, Any] = {
        "database": "studio",
        "server_version": "18.4",
        "taken_at": datetime(2026, 11, 22, tzinfo=UTC),
        "lsn": None,
        "duration_seconds": 1.0,
        "extensions": {"vector": "0.6.2"},
        "schema_sha256": "0" * 64,
        "content_algorithm": "sum-1",
        "busy_tables": [],
    }
    return Fingerprint.model_construct(tables=tables, objects=objects, **(facts | more))


def differences(before: Fingerprint, after: Fingerprint, **options: Any) -> list[str]:  # noqa: ANN401
    """The differences as text."""
    return [str(item) for item in compare(before, after, **options).differences]


BEFORE = fingerprint(table("one"), table("two", content=None), thing("column", "public.one.a", "int"))


def test_equal_fingerprints_pass() -> None:
    found = compare(BEFORE, BEFORE)
    assert found.passed
    assert found.matched_tables == ("public.one", "public.two")
    assert found.counted_tables == ("public.two",)
    assert (found.not_compared, found.notes, found.changed_during_backup) == ((), (), ())


def test_rows_and_content_are_compared() -> None:
    assert differences(fingerprint(table("t")), fingerprint(table("t", 9))) == ["table public.t: row count 10 → 9"]
    assert differences(fingerprint(table("t")), fingerprint(table("t", content="6"))) == [
        "table public.t: content differs"
    ]
    assert differences(fingerprint(table("t")), fingerprint(table("t", None, None))) == [
        "table public.t: row count 10 → not counted"
    ]
    unlogged = table("t", None, None, kind=TableKind.UNLOGGED)
    assert differences(fingerprint(table("t")), fingerprint(unlogged)) == ["table public.t: kind ordinary → unlogged"]


def test_content_is_compared_only_where_both_have_it_by_the_same_algorithm() -> None:
    assert compare(fingerprint(table("t")), fingerprint(table("t", content=None))).counted_tables == ("public.t",)
    other = fingerprint(table("t", content="6"), content_algorithm="sum-2")
    found = compare(fingerprint(table("t")), other)
    assert found.passed
    assert found.counted_tables == ("public.t",)
    assert found.notes == ("content was not compared: the backup hashed it by sum-1, the drill by sum-2",)


def test_rows_that_cannot_be_equal_are_not_compared() -> None:
    kinds = [TableKind.MATERIALIZED, TableKind.UNLOGGED, TableKind.FOREIGN]
    never = [table(kind, None, None, kind=kind) for kind in kinds]
    before = fingerprint(*never, table("gone", None, None), table("busy"))
    after = fingerprint(*(table(kind, 3, None, kind=kind) for kind in kinds), table("gone"), table("busy", 11))
    found = compare(before, after, not_compared={"public.busy", "public.unknown"})
    assert found.passed
    assert found.not_compared_tables == (
        "public.busy",
        "public.foreign",
        "public.gone",
        "public.materialized",
        "public.unlogged",
    )
    assert found.not_compared[0].reason == "it was written while the backup ran"


def test_busy_tables_count_only_where_the_caller_says_so() -> None:
    before = fingerprint(table("t"), busy_tables=["public.t"])
    assert not compare(before, fingerprint(table("t", 9))).passed
    assert compare(before, fingerprint(table("t", 9)), not_compared=before.busy_tables).passed


def test_a_missing_table_is_one_difference() -> None:
    parts = [
        thing("column", "public.t.a"),
        thing("index", "public.t.t_pkey"),
        thing("access", "relation public.t"),
        thing("column", "public.t2.a"),
    ]
    assert differences(fingerprint(table("t"), *parts), fingerprint(parts[3])) == ["table public.t: missing"]
    assert differences(fingerprint(parts[3]), fingerprint(table("t"), *parts)) == ["table public.t: not in the backup"]
    function = [thing("procedure", "public.p()"), thing("access", "function public.p()")]
    assert differences(fingerprint(*function), fingerprint()) == ["procedure public.p(): missing"]


def test_a_table_without_a_definition_is_missed_too() -> None:
    large = table("pg_largeobject_metadata", schema_name="pg_catalog")
    before = fingerprint(large)
    bare = before.model_copy(update={"objects": []})
    assert differences(bare, fingerprint()) == ["table pg_catalog.pg_largeobject_metadata: missing"]


def test_names_with_dots_do_not_hide_each_other() -> None:
    before = fingerprint(thing("column", "a.b.c", "int"), thing("column", "a.b.c", "text"))
    after = fingerprint(thing("column", "a.b.c", "int"), thing("column", "a.b.c", "date"))
    assert differences(before, after) == ["column a.b.c: definition differs"]


def test_extensions_are_compared() -> None:
    before = fingerprint(extensions={"a": "1", "b": "1", "c": "1"})
    after = fingerprint(extensions={"b": "2", "c": "1", "d": "1"})
    assert differences(before, after) == [
        "extension a: missing",
        "extension b: version 1 → 2",
        "extension d: not in the backup",
    ]


def test_kinds_can_be_left_out() -> None:
    before = fingerprint(thing("access", "relation public.t", "owner a"))
    assert differences(before, fingerprint(), ignore_kinds={"access"}) == []


def test_definitions_are_compared_by_name_across_major_versions() -> None:
    before = fingerprint(thing("view", "public.v", "one"), thing("view", "public.w"))
    after = fingerprint(thing("view", "public.v", "another"), server_version="17.2")
    found = compare(before, after)
    assert [str(item) for item in found.differences] == ["view public.w: missing"]
    assert found.notes == (
        "definitions were compared by name only: PostgreSQL 17.2 may print them differently than 18.4",
    )
    assert not compare(before, fingerprint(thing("view", "public.v", "x"), server_version="18.1")).passed


def test_ddl_during_the_backup_excuses_definitions_and_what_follows_from_them() -> None:
    before = fingerprint(table("t"), table("steady"), table("dropped"), thing("column", "public.t.a", "int"))
    after = fingerprint(table("t", content="6"), table("steady", 9), thing("column", "public.t.a", "text"))
    for name in ("pg_catalog.pg_attribute", UNKNOWN_CATALOG):
        found = compare(before, after, not_compared={name})
        assert [str(item) for item in found.differences] == ["table public.steady: row count 10 → 9"]
        assert [str(item) for item in found.changed_during_backup] == [
            "table public.dropped: missing",
            "column public.t.a: definition differs",
        ]
        assert found.not_compared_tables == ("public.t",)
    assert not compare(before, after, not_compared={"pg_catalog.pg_statistic"}).changed_during_backup


Rows = dict[str, tuple[int, str | None]]
Things = dict[tuple[str, str], str]
names = st.sampled_from(["a", "b", "c", "d"])
tables = st.dictionaries(names, st.tuples(st.integers(0, 3), st.sampled_from([None, "1", "2"])))
definitions = st.dictionaries(st.tuples(st.sampled_from(["view", "function"]), names), st.sampled_from(["x", "y"]))


def build(rows: Rows, things: Things) -> Fingerprint:
    """A fingerprint from plain values."""
    found: list[TableFingerprint | SchemaObject] = [table(name, *facts) for name, facts in rows.items()]
    return fingerprint(*found, *(thing(kind, name, text) for (kind, name), text in things.items()))


@given(tables, definitions)
def test_a_fingerprint_equals_itself(rows: Rows, things: Things) -> None:
    found = compare(build(rows, things), build(dict(reversed(rows.items())), things))
    assert found.passed
    assert set(found.matched_tables) == {f"public.{name}" for name in rows}


def _differ(before: tuple[int, str | None], after: tuple[int, str | None]) -> bool:
    both_hashed = before[1] is not None and after[1] is not None
    return before[0] != after[0] or (both_hashed and before[1] != after[1])


@given(tables, tables, definitions, definitions)
def test_exactly_what_differs_is_named(
    before_rows: Rows, after_rows: Rows, before_things: Things, after_things: Things
) -> None:
    found = compare(build(before_rows, before_things), build(after_rows, after_things))
    expected = {key for key in before_things.keys() | after_things if before_things.get(key) != after_things.get(key)}
    for name in before_rows.keys() | after_rows:
        before, after = before_rows.get(name), after_rows.get(name)
        if before is None or after is None or _differ(before, after):
            expected.add(("table", f"public.{name}"))
    assert {(item.kind, item.name) for item in found.differences} == expected
    assert found.passed == (not expected)
    touched = {f"public.{name}" for name in before_rows} | {UNKNOWN_CATALOG}
    everything = compare(build(before_rows, {}), build(after_rows, {}), not_compared=touched)
    assert everything.passed
    assert everything.matched_tables == ()
