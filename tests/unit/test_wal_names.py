"""Segment names, LSNs, timelines: the names that PostgreSQL gives, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.wal.names import (
    LAST_LSN,
    ArchiveNameKind,
    InvalidLsn,
    InvalidWalName,
    Segment,
    TimelineSwitch,
    format_lsn,
    history_name,
    is_segment_size,
    parse_archive_name,
    parse_history,
    parse_lsn,
    parse_segment,
    segment_at,
    segment_before,
)

MEGABYTE = 1 << 20
lsns = st.integers(0, LAST_LSN)
sizes = st.sampled_from([MEGABYTE << power for power in range(11)])
timelines = st.integers(1, (1 << 32) - 1)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    return segment_at(draw(lsns), draw(timelines), draw(sizes))


@given(lsns)
def test_lsn_survives_its_text_form(position: int) -> None:
    assert parse_lsn(format_lsn(position)) == position
    assert parse_lsn(format_lsn(position).lower()) == position


@given(lsns, lsns)
def test_lsns_order_as_numbers(one: int, other: int) -> None:
    assert (parse_lsn(format_lsn(one)) < parse_lsn(format_lsn(other))) == (one < other)


@pytest.mark.parametrize(("text", "position"), [("0/16B3748", 0x16B3748), ("16/B374D848", 0x16B374D848), ("0/0", 0)])
def test_lsn_has_postgresqls_text_form(text: str, position: int) -> None:
    assert parse_lsn(text) == position
    assert format_lsn(position) == text


@pytest.mark.parametrize(
    "text", ["", "/", "0/", "/0", "0", "0/123456789", "0/G", "0/1 ", " 0/1", "0/1\n", "-1/0", "\u0660/\u0661"]
)
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(InvalidLsn, match="not a WAL position"):
        parse_lsn(text)


@pytest.mark.parametrize("position", [-1, LAST_LSN + 1])
def test_positions_have_64_bits(position: int) -> None:
    with pytest.raises(InvalidLsn):
        format_lsn(position)


@given(segments())
def test_segment_survives_its_name(segment: Segment) -> None:
    assert re.fullmatch("[0-9A-F]{24}", segment.name)
    assert parse_segment(segment.name, segment.size_bytes) == segment


@given(segments(), st.integers(0, (1 << 30) - 1))
def test_segment_holds_the_positions_from_its_start_to_its_end(segment: Segment, offset: int) -> None:
    position = segment.start_lsn + offset % segment.size_bytes
    assert segment_at(position, segment.timeline, segment.size_bytes) == segment
    assert segment.end_lsn - segment.start_lsn == segment.size_bytes
    if segment.start_lsn > 0:
        before = segment_at(segment.start_lsn - 1, segment.timeline, segment.size_bytes)
        assert before == segment.following(-1)
        assert before.end_lsn == segment.start_lsn
        assert before < segment


@given(segments())
def test_names_of_one_timeline_sort_as_their_segments(segment: Segment) -> None:
    if segment.end_lsn <= LAST_LSN:
        assert segment.name < segment.following().name


@pytest.mark.parametrize(
    ("lsn", "timeline", "size_bytes", "name"),
    [
        # select pg_walfile_name(...) of a real server with this --wal-segsize
        ("0/1000000", 1, 16 * MEGABYTE, "000000010000000000000001"),
        ("0/FFFFFFFF", 1, 16 * MEGABYTE, "0000000100000000000000FF"),
        ("1/0", 2, 16 * MEGABYTE, "000000020000000100000000"),
        ("0/FFFFFFFF", 1, MEGABYTE, "000000010000000000000FFF"),
        ("1/0", 1, MEGABYTE, "000000010000000100000000"),
        ("0/40000000", 1, 1024 * MEGABYTE, "000000010000000000000001"),
        ("A/FFFFFFFF", 0xAB, 1024 * MEGABYTE, "000000AB0000000A00000003"),
    ],
)
def test_names_are_postgresqls(lsn: str, timeline: int, size_bytes: int, name: str) -> None:
    assert segment_at(parse_lsn(lsn), timeline, size_bytes).name == name


def test_backup_that_stops_on_a_boundary_needs_the_segment_before() -> None:
    assert segment_before(parse_lsn("0/3000000"), 1).name == "000000010000000000000002"
    assert segment_before(parse_lsn("0/3000001"), 1).name == "000000010000000000000003"
    assert segment_before(0, 1).name == "000000010000000000000000"


@pytest.mark.parametrize(
    ("name", "kind", "timeline"),
    [
        ("00000001000000000000000A", ArchiveNameKind.SEGMENT, 1),
        ("00000001000000000000000A.partial", ArchiveNameKind.PARTIAL, 1),
        ("00000001000000000000000A.00000028.backup", ArchiveNameKind.BACKUP, 1),
        ("000000FF.history", ArchiveNameKind.HISTORY, 255),
    ],
)
def test_the_four_kinds_of_archive_files(name: str, kind: ArchiveNameKind, timeline: int) -> None:
    parsed = parse_archive_name(name)
    assert (parsed.kind, parsed.timeline, parsed.name) == (kind, timeline, name)
    assert (parsed.segment is None) == (kind is ArchiveNameKind.HISTORY)
    if parsed.segment is not None:
        assert parsed.segment.name == name[:24]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "000000010000000000000001\n",
        " 000000010000000000000001",
        "00000001000000000000000a",  # PostgreSQL writes capitals
        "00000001000000000000000",
        "0000000100000000000000010",
        "000000000000000000000001",  # there is no timeline 0
        "00000000.history",
        "000000010000000000000100",  # 4 GB hold 256 segments of 16 MB
        "000000010000000000000001.PARTIAL",
        "000000010000000000000001.gz",
        "000000010000000000000001.partial.partial",
        "000000010000000000000001.28.backup",
        "000000010000000000000001.FF000000.backup",  # beyond the segment's end
        "000000010000000000000001.backup",
        "00000001.history.partial",
        "../../etc/passwd",
        "000000010000000000000001/../x",
        "RECOVERYXLOG",
        "\u06600000001.history",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidWalName, match="not the name of a WAL file"):
        parse_archive_name(name)


likely = st.tuples(
    st.text("0123456789ABCDEFa", min_size=8, max_size=25),
    st.sampled_from(["", ".partial", ".history", ".00000028.backup", ".FFFFFFFF.backup", "\n"]),
).map("".join)


@given(st.text(max_size=50) | likely, sizes)
def test_any_text_is_a_name_or_refused(text: str, size_bytes: int) -> None:
    try:
        parsed = parse_archive_name(text, size_bytes)
    except InvalidWalName:
        return
    if parsed.segment is None:
        assert parsed.name == history_name(parsed.timeline)
    else:
        assert parsed.name.startswith(parsed.segment.name)


def test_the_segment_size_decides_which_names_there_are() -> None:
    assert parse_segment("000000010000000000000100", MEGABYTE).start_lsn == 0x100 * MEGABYTE
    with pytest.raises(InvalidWalName):
        parse_segment("000000010000000000000004", 1024 * MEGABYTE)
    with pytest.raises(InvalidWalName):
        parse_segment("000000010000000000000001", 3 * MEGABYTE)
    assert [size for size in (0, -1, 1, MEGABYTE // 2, MEGABYTE * 3, MEGABYTE * 2048) if is_segment_size(size)] == []


def test_a_history_file_is_no_segment() -> None:
    with pytest.raises(InvalidWalName, match="a history file, not a WAL segment"):
        parse_segment("00000002.history")


@pytest.mark.parametrize(("timeline", "number"), [(0, 1), (1, -1), (1 << 32, 1), (1, 1 << 40)])
def test_impossible_segments_cannot_be_made(timeline: int, number: int) -> None:
    with pytest.raises(InvalidWalName):
        Segment(timeline, number)


def test_history_lists_the_ancestors_oldest_first() -> None:
    text = "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/5000000\tbefore 2026-11-22 19:00:00+00\n"
    assert parse_history("00000003.history", text) == (
        TimelineSwitch(1, 0x3000148, "no recovery target specified"),
        TimelineSwitch(2, 0x5000000, "before 2026-11-22 19:00:00+00"),
    )


@pytest.mark.parametrize(
    "text", ["1\n", "x\t0/1\tr\n", "1\tnowhere\tr\n", "2\t0/1\n1\t0/2\n", "3\t0/1\n", "0\t0/1\n", "1\t0/1\n1\t0/2\n"]
)
def test_malformed_histories_are_refused(text: str) -> None:
    with pytest.raises((InvalidWalName, InvalidLsn)):
        parse_history("00000003.history", text)
