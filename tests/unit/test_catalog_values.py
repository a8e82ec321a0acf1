"""The catalog without a database: what is stored as what, cursors, errors, settings."""

import dataclasses
import json
import math
import pickle
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import create_engine

from lifeboat.catalog import tables, values
from lifeboat.catalog.columns import EnumText, UtcDateTime, storable_json, storable_text
from lifeboat.catalog.errors import CatalogNotMigrated, CatalogRefused, CatalogUnavailable, CursorInvalid
from lifeboat.catalog.migrate import head_revision
from lifeboat.catalog.pages import decode_cursor, encode_cursor
from lifeboat.catalog.store import BackupStatus, Catalog
from lifeboat.errors import LifeboatError
from lifeboat.settings.catalog import CatalogSettings

DIALECT = create_engine("postgresql+psycopg://").dialect
ROWS = [
    (tables.Backup, values.BackupRow),
    (tables.BackupSchedule, values.ScheduleRow),
    (tables.RestoreDrill, values.DrillRow),
    (tables.AssetFinding, values.FindingRow),
    (tables.StorageSample, values.StorageSample),
    (tables.AuditEntry, values.AuditRow),
]


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_a_row_has_a_field_for_each_column(table: type[tables.Base], row: type) -> None:
    assert {field.name for field in dataclasses.fields(row)} == {column.key for column in table.__table__.columns}


def test_the_tables_are_those_of_the_last_migration() -> None:
    assert head_revision() == tables.REVISION


@given(at=st.datetimes(timezones=st.just(UTC)), identifier=st.uuids())
def test_a_cursor_comes_back_whole_and_fits_into_a_url(at: datetime, identifier: UUID) -> None:
    cursor = encode_cursor(at, identifier)

    assert decode_cursor(cursor) == (at, identifier)
    assert set(cursor) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@given(st.text())
def test_any_other_text_is_refused_as_a_cursor_and_never_crashes(text: str) -> None:
    with pytest.raises(CursorInvalid):
        decode_cursor(text)


def test_a_cursor_without_a_time_zone_is_refused() -> None:
    with pytest.raises(CursorInvalid, match="not one of ours"):
        decode_cursor(encode_cursor(datetime(2026, 1, 1), UUID(int=1)))  # noqa: DTZ001 - that is what is refused


@given(st.text(alphabet=st.characters(blacklist_categories=()) | st.just("\0") | st.just("\udcff")))
def test_any_text_becomes_one_that_postgresql_stores(text: str) -> None:
    stored = storable_text(text)

    assert "\0" not in stored
    assert storable_text(stored) == stored.encode().decode()


def test_text_keeps_what_it_can_and_shows_the_rest() -> None:
    assert storable_text("größe \udcff\0.mp4") == "größe \\udcff\\x00.mp4"


def test_json_takes_what_reports_hold() -> None:
    value = {
        "id": UUID(int=1),
        "at": datetime(2026, 11, 22, tzinfo=UTC),
        "path": Path("a\0b"),
        "status": BackupStatus.FAILED,
        "pairs": [("a", True)],
        "count": 3,
        "share": 0.5,
        "nothing": None,
        "nan": math.nan,
        "endless": math.inf,
        7: {"deep": "\udcff"},
    }

    stored = storable_json(value)

    assert stored == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "2026-11-22T00:00:00+00:00",
        "path": "a\\x00b",
        "status": "failed",
        "pairs": [["a", True]],
        "count": 3,
        "share": 0.5,
        "nothing": None,
        "nan": "nan",
        "endless": "inf",
        "7": {"deep": "\\udcff"},
    }
    assert json.loads(json.dumps(stored, allow_nan=False)) == stored


def test_a_time_without_a_zone_is_refused() -> None:
    column = UtcDateTime()
    at = datetime(2026, 11, 22, 12, tzinfo=timezone(timedelta(hours=9)))

    with pytest.raises(ValueError, match="no time zone"):
        column.process_bind_param(at.replace(tzinfo=None), DIALECT)
    read = column.process_result_value(at, DIALECT)
    assert read == at
    assert read is not None
    assert read.tzinfo is UTC


def test_an_unknown_status_is_refused() -> None:
    column = EnumText(BackupStatus)

    assert column.process_bind_param(BackupStatus.FAILED, DIALECT) == "failed"
    with pytest.raises(ValueError, match="done"):
        column.process_result_value("done", DIALECT)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (CatalogUnavailable("away", hint="Start it."), True),
        (CatalogNotMigrated("old", hint="Run it."), False),
        (CatalogRefused("no", hint="Grant it."), False),
        (CursorInvalid("odd"), False),
    ],
)
def test_errors_survive_pickling_and_say_whether_to_retry(error: LifeboatError, transient: bool) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy)) == (type(error), str(error))
    assert copy.transient is transient


def test_a_password_is_in_no_text_form() -> None:
    settings = CatalogSettings(dsn="postgresql://lifeboat:geheim@db/catalog")  # type: ignore[arg-type]

    assert settings.dsn is not None
    shown = f"{settings!r} {settings} {Catalog(settings.dsn.get_secret_value())!r}"
    assert "geheim" not in shown
    assert "db" in shown


@pytest.mark.parametrize("wrong", [{"dsn": ""}, {"connect_timeout_seconds": 1}, {"dns": "host=db"}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CatalogSettings.model_validate(wrong)
