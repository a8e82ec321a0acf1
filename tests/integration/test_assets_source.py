"""Asset records from a real database: order, resumption, lost connections, bad queries, bounded memory."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from lifeboat.assets.integrity import check_assets
from lifeboat.assets.records import AssetQueryInvalid, AssetRecord, AssetSource
from lifeboat.assets.resume import ResumeFile
from lifeboat.settings.assets import AssetSettings
from tests.support.assets import write_assets

ROWS = "SELECT n AS id, 'draft' AS kind, 'f/' || n AS path, n * 10 AS size_bytes, NULL AS sha256 FROM generate_series"
TABLE_QUERY = "SELECT id, kind, path, size_bytes, sha256 FROM public.asset"


@pytest.fixture
def connection(fresh_database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        yield connection


def insert(connection: psycopg.Connection[tuple[object, ...]], records: list[AssetRecord]) -> None:
    connection.execute(
        "CREATE TABLE public.asset (id text PRIMARY KEY, kind text, path text, size_bytes int, sha256 text)"
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO public.asset VALUES (%s, %s, %s, %s, %s)",
            [(each.id, each.kind, each.path, each.size_bytes, each.sha256) for each in records],
        )


def test_records_come_in_the_order_of_their_ids_and_go_on_behind_one(fresh_database: str) -> None:
    source = AssetSource(fresh_database, f"{ROWS}(1, 5000) AS n ORDER BY random()")

    ids = [int(record.id) for record in source.records()]

    assert ids == list(range(1, 5001))
    # By number, not by letter: "999" comes before "1000".
    assert [int(record.id) for record in source.records(after="999")] == list(range(1000, 5001))
    assert source.totals() == (5000, 10 * sum(range(5001)))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT '00000000-0000-0000-0000-00000000000' || n AS id",
        "SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid AS id",
    ],
)
def test_ids_may_be_text_or_uuid(fresh_database: str, query: str) -> None:
    rest = ", 'k' AS kind, 'p' AS path, 1 AS size_bytes, NULL AS sha256 FROM generate_series(1, 9) AS n"
    source = AssetSource(fresh_database, query + rest)
    third = "00000000-0000-0000-0000-000000000003"

    assert [record.id[-1] for record in source.records(after=third)] == list("456789")
    assert source.current([third, "00000000-0000-0000-0000-00000000000f"]).keys() == {third}


def test_percent_signs_comments_and_semicolons_in_the_query_are_harmless(fresh_database: str) -> None:
    odd = f"{ROWS}(1, 30) AS n WHERE 'a' || n LIKE '%1%' AND n % 2 = 1"
    assert len(list(AssetSource(fresh_database, f"{odd} ;\n").records())) == 7

    source = AssetSource(fresh_database, f"{odd} -- only some")

    assert [record.id for record in source.records()] == ["1", "11", "13", "15", "17", "19", "21"]
    assert [record.id for record in source.records(after="15")] == ["17", "19", "21"]
    assert list(source.current(["2", "11"])) == ["11"]
    assert source.totals()[0] == 7


def test_checksums_may_be_bytes_or_in_capitals(fresh_database: str) -> None:
    row = "SELECT 1 AS id, NULL AS kind, NULL AS path, NULL AS size_bytes, "
    for checksum in ("sha256('a')", "upper(encode(sha256('a'), 'hex'))"):
        (record,) = AssetSource(fresh_database, f"{row}{checksum} AS sha256").records()

        assert record.sha256 == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
        assert (record.kind, record.path, record.size_bytes) == ("", "", None)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1 AS id, 'a' AS path", "column asset.kind does not exist"),
        ("SELECT * FROM nowhere", 'relation "nowhere" does not exist'),
        ("DELETE FROM pg_class RETURNING 1", "syntax error"),
        ("SELECT NULL AS id, '' AS kind, '' AS path, 1 AS size_bytes, '' AS sha256", "without an id"),
        ("SELECT 1 AS id, '' AS kind, '' AS path, 'many' AS size_bytes, '' AS sha256", "invalid input syntax"),
    ],
)
def test_a_bad_query_is_named(fresh_database: str, query: str, message: str) -> None:
    with pytest.raises(AssetQueryInvalid, match=message):
        list(AssetSource(fresh_database, query).records())


def test_reading_holds_no_transaction_open(
    fresh_database: str, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    records = AssetSource(fresh_database, f"{ROWS}(1, 9000) AS n").records()
    next(records)

    session = connection.execute(
        "SELECT state, xact_start, backend_xmin FROM pg_stat_activity WHERE application_name = 'lifeboat assets'"
    ).fetchall()

    assert session == [("idle", None, None)]
    assert len(list(records)) == 8999


def test_a_lost_connection_loses_and_repeats_no_record(
    fresh_database: str, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    ids = []
    for record in AssetSource(fresh_database, f"{ROWS}(1, 9000) AS n").records():
        ids.append(int(record.id))
        if len(ids) in {1, 5000}:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'lifeboat assets'"
            )

    assert ids == list(range(1, 9001))


def test_many_records_take_little_memory(fresh_database: str) -> None:
    source = AssetSource(fresh_database, f"{ROWS}(1, 40000) AS n")
    tracemalloc.start()
    try:
        count = sum(1 for _ in source.records())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 40_000
    assert peak_bytes < 4 * 1024 * 1024


def test_a_check_by_settings_finds_what_is_wrong(
    fresh_database: str, connection: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    root = tmp_path / "assets"
    records = write_assets(root, 300)
    insert(connection, records)
    (root / records[5].path).unlink()
    (root / records[250].path).write_bytes(b"overwritten")
    settings = AssetSettings(roots=[root], query=TABLE_QUERY, workers=2)

    report = check_assets(fresh_database, settings, tmp_path / "resume.json")

    assert (report.checked, report.missing, report.corrupt, report.unreadable) == (300, 1, 1, 0)
    assert [finding.asset_id for finding in report.findings] == [records[5].id, records[250].id]


def test_rows_that_change_during_the_check_give_no_false_finding(
    fresh_database: str, connection: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    root = tmp_path / "assets"
    records = write_assets(root, 100)
    insert(connection, records)
    stale = list(AssetSource(fresh_database, TABLE_QUERY).records())
    (root / records[1].path).unlink()
    connection.execute("DELETE FROM public.asset WHERE id = %s", (records[1].id,))
    (root / records[2].path).write_bytes(b"")
    connection.execute(
        "UPDATE public.asset SET size_bytes = 0, sha256 = encode(sha256(''), 'hex') WHERE id = %s", (records[2].id,)
    )
    (root / records[3].path).unlink()
    source = AssetSource(fresh_database, TABLE_QUERY)

    current = source.current([record.id for record in stale[:5]])

    assert len(current) == 4
    settings = AssetSettings(roots=[root], query=TABLE_QUERY)
    assert check_assets(fresh_database, settings, tmp_path / "resume.json").missing == 1


def test_a_sample_reads_a_share(
    fresh_database: str, connection: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    root = tmp_path / "assets"
    insert(connection, write_assets(root, 400, size_bytes=50))
    settings = AssetSettings(roots=[root], query=TABLE_QUERY, sample_fraction=0.25)

    report = check_assets(fresh_database, settings, tmp_path / "resume.json")

    assert report.sound
    assert report.sample_fraction == 0.25
    assert 40 < report.checked < 160


def test_resume_can_be_switched_off(
    fresh_database: str, connection: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    root, resume_path = tmp_path / "assets", tmp_path / "resume.json"
    insert(connection, write_assets(root, 20))
    (root / "000" / "00001.mp4").unlink()
    settings = AssetSettings(roots=[root], query=TABLE_QUERY)

    def interrupt(_: object) -> None:
        raise InterruptedError

    for resume, resumed in ((False, False), (True, True)):
        with pytest.raises(InterruptedError):
            check_assets(fresh_database, settings, resume_path, on_finding=interrupt)
        assert resume_path.exists()
        # Pretend that the interrupted check had got somewhere.
        text = resume_path.read_text().replace('"position": null', '"position": "00000"')
        resume_path.write_text(text)
        report = check_assets(fresh_database, settings.model_copy(update={"resume": resume}), resume_path)
        assert report.resumed is resumed
        assert report.checked == 20


def test_the_state_of_another_database_is_not_used(
    fresh_database: str, connection: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    root, resume_path = tmp_path / "assets", tmp_path / "resume.json"
    insert(connection, write_assets(root, 20))
    with ResumeFile(resume_path, scope="another database") as resume:
        resume.save(type(resume.state)(**{**resume.state.__dict__, "position": "00015", "checked": 15}), [])

    report = check_assets(fresh_database, AssetSettings(roots=[root], query=TABLE_QUERY), resume_path)

    assert not report.resumed
    assert report.checked == 20
