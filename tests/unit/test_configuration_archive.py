"""The archive file: the same bytes for the same content, opened by stock tools, and nothing hostile gets through."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.configuration.archive import encode_archive, write_archive
from lifeboat.configuration.content import AnyContent, Archive, FileItem, FilesSection, RowsSection, in_key_order
from lifeboat.configuration.folders import link_leaves
from lifeboat.configuration.index import ArchiveIndex, ConfigurationError
from lifeboat.configuration.jsontext import render
from lifeboat.configuration.reading import ArchiveInvalid, decode_archive, read_archive
from lifeboat.configuration.restore_sql import restore_sql

FILES = (
    FileItem("on_approve", "directory", 0o2750),
    FileItem("on_approve/latest", "link", 0o777, target="notify ü.sh"),
    FileItem("on_approve/notify ü.sh", "file", 0o755, b"#!/bin/sh\necho \xff\n"),
    FileItem("x" * 120 + ".sh", "file", 0o600, b""),
)
ROWS = ({"id": "2", "graph": '{"seed": 1.10}'}, {"id": "10", "graph": "null"}, {"id": "11"})


def make_archive(rows: tuple[dict[str, str], ...] = ROWS, files: tuple[FileItem, ...] = FILES) -> Archive:
    sections: dict[str, AnyContent] = {
        "workflows": RowsSection("query", "workflows", {"id": "integer", "graph": "jsonb"}, ("id",), rows),
        "hook_scripts": FilesSection("folder", "hook scripts", "/srv/hooks", files),
    }
    index = ArchiveIndex(
        lifeboat_version="0.1.0",
        database="studio",
        server_version="18.4",
        sections={name: section.index for name, section in sections.items()},
    )
    script = hashlib.sha256(restore_sql(index).encode()).hexdigest()
    return Archive(index.model_copy(update={"restore_sql_sha256": script}), sections)


def decode(data: bytes) -> Archive:
    return decode_archive(io.BytesIO(data))


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    archive = make_archive()
    written = write_archive(archive, tmp_path)
    assert read_archive(written.path) == archive
    assert written.path.stat().st_mode & 0o7777 == 0o600
    assert written.path.read_bytes() == encode_archive(archive)
    assert (written.size_bytes, written.sha256) == (
        written.path.stat().st_size,
        hashlib.sha256(written.path.read_bytes()).hexdigest(),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["configuration.tar.gz"]


values = st.none() | st.booleans() | st.text(max_size=8) | st.lists(st.text(max_size=3), max_size=3)
contents = st.dictionaries(
    st.integers(), st.dictionaries(st.text(min_size=1, max_size=4), values, max_size=3), max_size=4
)


@given(contents, st.permutations(range(4)))
def test_the_same_content_gives_the_same_bytes(content: dict[int, dict[str, object]], order: list[int]) -> None:
    rows = [
        {**{f"x{name}": render(value) for name, value in fields.items()}, "id": str(key)}  # type: ignore[arg-type]
        for key, fields in content.items()
    ]
    columns = {name: "text" for row in rows for name in row} | {"id": "bigint"}
    shuffled = [dict(reversed(rows[at].items())) for at in order if at < len(rows)]

    def build(given_rows: list[dict[str, str]]) -> Archive:
        ordered = in_key_order("workflows", given_rows, ("id",))
        section = RowsSection("query", "workflows", dict(sorted(columns.items())), ("id",), ordered)
        base = make_archive()
        sections: dict[str, AnyContent] = {**base.sections, "workflows": section}
        index = base.index.model_copy(update={"sections": {name: each.index for name, each in sections.items()}})
        return Archive(index, sections)

    data = encode_archive(build(rows))
    assert encode_archive(build(shuffled)) == data
    assert decode(data) == build(rows)
    assert b"\r" not in data[:10]


def test_stock_tar_finds_what_is_there() -> None:
    with tarfile.open(fileobj=io.BytesIO(encode_archive(make_archive()))) as tar:
        members = tar.getmembers()
        assert [member.name for member in members][:3] == ["index.json", "restore.sql", "sections/workflows.json"]
        assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {(0, 0, "", 315532800)}
        assert json.load(tar.extractfile("sections/workflows.json"))[0] == {"id": 2, "graph": {"seed": 1.1}}  # type: ignore[arg-type]
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert list(index)[:2] == ["format", "format_version"]
    assert index["sections"]["hook_scripts"]["item_count"] == 3


def test_rows_are_in_the_order_of_numbers() -> None:
    rows = [{"id": text} for text in ("10", "9", '"b"', "-1", '"a"', "9.5")]
    assert [row["id"] for row in in_key_order("x", rows, ("id",))] == ["-1", "9", "9.5", "10", '"a"', '"b"']


def test_two_items_with_one_key_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two items with the key 1"):
        in_key_order("x", [{"id": "1", "a": "1"}, {"id": "1", "a": "2"}], ("id",))


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


def tampered(change: Change) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(encode_archive(make_archive()))) as tar:
        members = [
            (member, file.read() if (file := tar.extractfile(member)) and member.isreg() else b"")
            for member in tar.getmembers()
        ]
    change(members)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        members.append((member, data))

    return change


def edit(name: str, replacement: Callable[[bytes], bytes]) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        at = next(at for at, (member, _) in enumerate(members) if member.name == name)
        members[at] = (members[at][0], replacement(members[at][1]))

    return change


def edit_index(replacement: Callable[[dict], None]) -> Change:  # type: ignore[type-arg]
    def change(data: bytes) -> bytes:
        index = json.loads(data)
        replacement(index)
        return json.dumps(index).encode()

    return edit("index.json", change)


def set_mode(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[-1][0].mode = 0o4755


def turn_into_link(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    member = next(member for member, _ in members if member.name.endswith("ü.sh"))
    members.remove(next(pair for pair in members if pair[0] is member))
    member.type, member.linkname = tarfile.LNKTYPE, "index.json"
    members.append((member, b""))


def record(index: dict, at: int) -> dict:  # type: ignore[type-arg]
    return index["sections"]["hook_scripts"]["files"][at]  # type: ignore[no-any-return]


def sections(index: dict) -> dict:  # type: ignore[type-arg]
    return index["sections"]  # type: ignore[no-any-return]


TAMPERED: dict[str, tuple[Change, str]] = {
    "a way up": (add("../evil"), "does not announce"),
    "an absolute name": (add("/etc/passwd"), "does not announce"),
    "a way up below": (add("files/hook_scripts/../../evil"), "does not announce"),
    "a name twice": (add("sections/workflows.json"), "twice"),
    "one more link": (add("files/hook_scripts/x", kind=tarfile.SYMTYPE, target="/etc"), "does not announce"),
    "a device": (add("files/hook_scripts/x", kind=tarfile.CHRTYPE), "does not announce"),
    "a hard link": (turn_into_link, "not a file, a link or a directory"),
    "a mode": (set_mode, "differs from what its index says"),
    "a row": (
        edit("sections/workflows.json", lambda data: data.replace(b"1.10", b"1.11")),
        "differs from its checksum",
    ),
    "the script": (edit("restore.sql", lambda data: data + b"DROP TABLE x;"), "restore.sql differs"),
    "a size": (edit("files/hook_scripts/on_approve/notify ü.sh", lambda data: data[:-1]), "bytes, its index says"),
    "a byte": (
        edit("files/hook_scripts/on_approve/notify ü.sh", lambda data: data[::-1]),
        "differs from what its index",
    ),
    "the last": (lambda members: members.__delitem__(-1), "missing"),
    "the index": (lambda members: members.__delitem__(0), "does not start with index.json"),
    "a later format": (edit_index(lambda index: index.update(format_version=2, new_field=1)), "has format 2"),
    "an unknown field": (edit_index(lambda index: index.update(evil=1)), "index is wrong at evil"),
    "a path up": (edit_index(lambda index: record(index, 2).update(path="../x")), "index is wrong at"),
    "an absolute path": (edit_index(lambda index: record(index, 2).update(path="/x")), "index is wrong at"),
    "a path twice": (edit_index(lambda index: record(index, 2).update(path="on_approve")), "twice"),
    "a section up": (
        edit_index(lambda index: sections(index).update({"../x": sections(index)["workflows"]})),
        "is wrong",
    ),
    "a count": (edit_index(lambda index: sections(index)["workflows"].update(item_count=1)), "what its index says"),
    "columns": (edit_index(lambda index: sections(index)["workflows"].update(columns={"id": "x"})), "its index says"),
    "a key": (edit_index(lambda index: sections(index)["workflows"].update(key_columns=["nope"])), "key column"),
    "no object": (edit("index.json", lambda _: b"[]"), "index is wrong"),
    "a deep one": (edit("index.json", lambda _: b"[" * 200_000), "not readable as JSON"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_tampered_with_is_refused(what: str) -> None:
    change, why = TAMPERED[what]
    with pytest.raises(ArchiveInvalid, match=why):
        decode(tampered(change))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "../..", "a/../../../x", "sub/../x", ""])
def test_links_that_leave_the_folder_are_refused(target: str) -> None:
    files = (FileItem("sub", "directory", 0o755), FileItem("sub/link", "link", 0o777, target=target))
    with pytest.raises(ArchiveInvalid, match="leaves its folder"):
        decode(encode_archive(make_archive(files=files)))


def test_nothing_lies_below_a_link() -> None:
    files = (FileItem("sub", "link", 0o777, target="other"), FileItem("sub/x", "file", 0o600, b"x"))
    with pytest.raises(ArchiveInvalid, match="lies below sub"):
        decode(encode_archive(make_archive(files=files)))


@pytest.mark.parametrize("target", ["x", "../x", "./a/b", "..", "../a/./b"])
def test_links_inside_are_kept(target: str) -> None:
    assert not link_leaves("sub/link", target)


def test_an_archive_that_unpacks_to_an_absurd_size_is_refused() -> None:
    bomb = replace(FILES[3], content=b"\0" * 40_000_000)
    data = encode_archive(make_archive(files=(bomb,)))
    assert len(data) < 100_000
    with pytest.raises(ArchiveInvalid, match="unpacks to more than 1000000 bytes"):
        decode_archive(io.BytesIO(data), max_total_bytes=1_000_000)


@pytest.mark.parametrize("cut", [0, 1, 20, 300, -30])
def test_a_torn_file_is_refused(cut: int) -> None:
    with pytest.raises(ArchiveInvalid):
        decode(encode_archive(make_archive())[:cut])


def test_the_checksum_of_the_whole_is_looked_at() -> None:
    data = encode_archive(make_archive())
    with pytest.raises(ArchiveInvalid, match="CRC check failed"):
        decode(data[:-8] + b"\0\0\0\0" + data[-4:])


def test_something_else_is_refused() -> None:
    for data in (b"not an archive", gzip.compress(b"not a tar"), gzip.compress(b"")):
        with pytest.raises(ArchiveInvalid):
            decode(data)


@given(st.binary(max_size=40), st.integers(min_value=10, max_value=900))
def test_no_damage_ends_in_anything_but_a_clear_error(noise: bytes, at: int) -> None:
    data = encode_archive(make_archive())
    damaged = data[:at] + noise + data[at + len(noise) :]
    with suppress(ArchiveInvalid):
        assert decode(damaged) == make_archive()
