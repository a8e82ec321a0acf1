"""Folders: what is taken, what is left out with a reason, and nothing through a link; writing back and undoing it."""

import os
import socket
import stat
from pathlib import Path

import pytest

from lifeboat.configuration.content import FileItem, FilesSection
from lifeboat.configuration.file_writer import JOURNAL_NAME, FileWriter, undo_files
from lifeboat.configuration.folders import FolderReader
from lifeboat.configuration.globs import Globs
from lifeboat.configuration.index import ConfigurationError
from lifeboat.configuration.plan import FileAction
from lifeboat.configuration.plan_files import FilesPlanner
from lifeboat.configuration.redaction import Redactor
from lifeboat.settings.configuration import ConfigurationSettings, FolderSection

KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**", "a/b/c", True),
        ("*.sh", "a/b/c.sh", True),
        ("*.sh", "c.sh.txt", False),
        ("a/*.sh", "a/c.sh", True),
        ("a/*.sh", "a/b/c.sh", False),
        ("a/**/c.sh", "a/c.sh", True),
        ("a/**/c.sh", "a/x/y/c.sh", True),
        ("__pycache__", "a/__pycache__/x.pyc", True),
        ("cache/", "cache/x", True),
        ("v[0-9].sh", "v7.sh", True),
        ("v[!0-9].sh", "v7.sh", False),
        ("a.sh", "aXsh", False),
        ("?.sh", "a.sh", True),
        ("[", "[", True),
    ],
)
def test_globs(pattern: str, path: str, matches: bool) -> None:
    assert Globs([pattern]).match(path) is matches


def reader(root: Path, **settings: object) -> FolderReader:
    section = FolderSection.model_validate({"path": str(root), **settings})
    return FolderReader("hooks", section, Redactor(), 1000, 10_000, 100)


def read(root: Path, **settings: object) -> tuple[dict[str, FileItem], dict[str, str]]:
    each = reader(root, **settings)
    return {item.path: item for item in each.read().files}, {found.item: found.problem for found in each.findings}


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    root = tmp_path / "hooks"
    (root / "on_approve").mkdir(parents=True)
    (root / "on_approve").chmod(0o2750)
    (root / "empty").mkdir()
    script = root / "on_approve" / "notify.sh"
    script.write_bytes(b"#!/bin/sh\necho approved\n")
    script.chmod(0o755)
    (root / "on_approve" / "latest").symlink_to("notify.sh")
    (root / "readme.txt").write_text("hello\n")
    (root / "readme.txt").chmod(0o640)
    return root


def test_files_modes_links_and_directories(hooks: Path) -> None:
    files, findings = read(hooks)
    assert {path: (item.kind, oct(item.mode), item.target) for path, item in files.items()} == {
        "empty": ("directory", "0o755", None),
        "on_approve": ("directory", "0o2750", None),
        "on_approve/latest": ("link", "0o777", "notify.sh"),
        "on_approve/notify.sh": ("file", "0o755", None),
        "readme.txt": ("file", "0o640", None),
    }
    assert files["on_approve/notify.sh"].content == b"#!/bin/sh\necho approved\n"
    assert not findings


def test_include_and_exclude(hooks: Path) -> None:
    (hooks / "on_approve" / "old.sh").write_text("x")
    files, _ = read(hooks, include=["*.sh"], exclude=["old*"])
    assert list(files) == ["on_approve", "on_approve/notify.sh"]


def test_what_is_left_out_says_why(hooks: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("not ours")
    (hooks / "away").symlink_to(tmp_path / "outside")
    (hooks / "up").symlink_to("../outside")
    (hooks / "id_ed25519").write_bytes(KEY)
    (hooks / "store.p12").write_bytes(b"\x30\x82")
    (hooks / "large").write_bytes(b"x" * 1001)
    os.mkfifo(hooks / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(hooks / "sock"))
    (hooks / os.fsdecode(b"bad\xff")).write_text("x")
    files, findings = read(hooks)
    assert sorted(files) == ["empty", "on_approve", "on_approve/latest", "on_approve/notify.sh", "readme.txt"]
    assert findings == {
        "away": "the link leaves the folder; it is left out",
        "bad\ufffd": "the name is not UTF-8; it is left out",
        "id_ed25519": "the file holds a private key; it is left out",
        "large": "the file is larger than 1000 bytes; it is left out",
        "pipe": "it is not a file, a link or a directory; it is left out",
        "sock": "it is not a file, a link or a directory; it is left out",
        "store.p12": "the file holds a private key; it is left out",
        "up": "the link leaves the folder; it is left out",
    }


def test_suspected_secrets_are_reported_or_refused(hooks: Path) -> None:
    (hooks / "post.sh").write_text("#!/bin/sh\nAPI_TOKEN=abc123def\n")
    files, findings = read(hooks)
    assert "post.sh" in files
    assert findings == {
        "post.sh": "the file seems to hold a password or token in line 2; it is in the archive as it is"
    }
    files, findings = read(hooks, suspected_secrets="refuse")
    assert "post.sh" not in files
    assert findings == {"post.sh": "the file seems to hold a password or token in line 2; it is left out"}


def test_a_folder_that_cannot_be_read_is_an_error(hooks: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*/nowhere of the section hooks: No such file"):
        read(tmp_path / "nowhere")
    for number in range(101):
        (hooks / f"{number}").write_text("x")
    with pytest.raises(ConfigurationError, match="more than 100 files or 10000 bytes"):
        read(hooks)


def plan(root: Path, files: list[FileItem], *, prune: bool = False) -> FilesPlanner:
    section = FolderSection.model_validate({"path": str(root)})
    planner = FilesPlanner("hooks", FilesSection("folder", "hooks", "/srv", tuple(files)), root)
    planner.actions = planner.plan(ConfigurationSettings(), section, prune=prune).actions  # type: ignore[attr-defined]
    return planner


def actions(planner: FilesPlanner) -> tuple[FileAction, ...]:
    return planner.actions  # type: ignore[attr-defined,no-any-return]


def state(root: Path) -> dict[str, tuple[str, int, bytes]]:
    found = {}
    for path in sorted(root.rglob("*")):
        kind = path.lstat()
        content = os.readlink(path).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(root))] = (stat.filemode(kind.st_mode)[0], stat.S_IMODE(kind.st_mode), content)
    return found


def change_everything(hooks: Path) -> list[FileItem]:
    before = list(reader(hooks).read().files)
    (hooks / "on_approve" / "notify.sh").write_bytes(b"broken")
    (hooks / "on_approve" / "latest").unlink()
    (hooks / "on_approve" / "latest").symlink_to("gone.sh")
    (hooks / "readme.txt").chmod(0o600)
    (hooks / "empty").rmdir()
    (hooks / "on_approve" / "new.sh").write_text("new")
    return before


@pytest.mark.parametrize("prune", [False, True])
def test_applying_brings_the_folder_back_and_undoing_takes_it_away(hooks: Path, tmp_path: Path, prune: bool) -> None:
    original = state(hooks)
    archived = change_everything(hooks)
    changed = state(hooks)
    kept, writer = tmp_path / "kept", FileWriter(tmp_path / "kept")
    for action in actions(plan(hooks, archived, prune=prune)):
        writer.apply("hooks", hooks, action)
    expected = original if prune else original | {"on_approve/new.sh": changed["on_approve/new.sh"]}
    assert state(hooks) == expected
    assert actions(plan(hooks, archived, prune=prune)) == ()
    assert kept.stat().st_mode & 0o777 == 0o700
    # As if the process had died: only the journal is left.
    assert undo_files(kept) == (5 if prune else 4)
    assert state(hooks) == changed
    undo_files(kept)
    assert state(hooks) == changed


@pytest.mark.parametrize("suspected_secrets", ["refuse", "report"])
def test_pruning_leaves_what_exports_leave_out(hooks: Path, suspected_secrets: str) -> None:
    for name in ("deploy.sh", "archived_without.sh"):
        (hooks / name).write_text("#!/bin/sh\nAPI_TOKEN=abc123def\n")
    (hooks / "id_ed25519").write_bytes(KEY)
    section = FolderSection.model_validate({"path": str(hooks), "suspected_secrets": suspected_secrets})
    planner = FilesPlanner("hooks", FilesSection("folder", "hooks", "/srv", ()), hooks, {"archived_without.sh"})
    planned = planner.plan(ConfigurationSettings(), section, prune=True)
    kept = ["archived_without.sh", "id_ed25519"]
    removed = ["on_approve/latest", "on_approve/notify.sh", "readme.txt"]
    if suspected_secrets == "refuse":
        kept.insert(1, "deploy.sh")
    else:
        removed.insert(0, "deploy.sh")
    assert [action.item.path for action in planned.actions] == removed
    assert [(note.item, note.problem) for note in planner.notes] == [
        (path, "is not removed: exports leave it out") for path in kept
    ]


@pytest.mark.parametrize(
    ("item", "taken"),
    [
        (FileItem("a/new.sh", "file", 0o755, b"true"), True),
        (FileItem("a/new.txt", "file", 0o755, b"true"), False),
        (FileItem("old/new.sh", "file", 0o755, b"true"), False),
        (FileItem("new.sh", "file", 0o755, b"API_TOKEN=abc123def\n"), False),
        (FileItem("new.sh", "file", 0o755, b"x" * 1001), False),
        (FileItem("new.sh", "link", 0o777, target="other.sh"), True),
        (FileItem("new.sh", "link", 0o777, target="/etc/passwd"), False),
    ],
)
def test_a_file_that_is_not_there_yet_is_judged_as_an_export_would(tmp_path: Path, item: FileItem, taken: bool) -> None:
    assert reader(tmp_path, include=["*.sh"], exclude=["old"], suspected_secrets="refuse").takes(item) is taken


def test_a_folder_that_is_not_there_is_made(tmp_path: Path, hooks: Path) -> None:
    root = tmp_path / "new" / "hooks"
    archived = list(reader(hooks).read().files)
    writer = FileWriter(tmp_path / "kept")
    for action in actions(plan(root, [item for item in archived if item.kind != "directory"])):
        writer.apply("hooks", root, action)
    assert (root / "on_approve" / "notify.sh").stat().st_mode & 0o777 == 0o755
    writer.undo()
    assert not (tmp_path / "new").exists()


def test_what_somebody_wrote_since_is_not_undone(hooks: Path, tmp_path: Path) -> None:
    archived = change_everything(hooks)
    writer = FileWriter(tmp_path / "kept")
    for action in actions(plan(hooks, archived)):
        writer.apply("hooks", hooks, action)
    (hooks / "on_approve" / "notify.sh").write_bytes(b"edited by hand")
    writer.undo()
    assert (hooks / "on_approve" / "notify.sh").read_bytes() == b"edited by hand"


def test_nothing_is_written_through_a_link(hooks: Path, tmp_path: Path) -> None:
    archived = list(reader(hooks).read().files)
    outside = tmp_path / "outside"
    (hooks / "on_approve").rename(outside)
    (hooks / "on_approve").symlink_to(outside)
    before = state(outside)
    with pytest.raises(ConfigurationError, match="leads through a symbolic link"):
        plan(hooks, archived)
    action = FileAction("write", FileItem("on_approve/evil.sh", "file", 0o755, b"evil"), None)
    with pytest.raises(ConfigurationError, match="leads through a symbolic link"):
        FileWriter(tmp_path / "kept").apply("hooks", hooks, action)
    assert state(outside) == before


def test_a_link_is_replaced_and_not_followed(hooks: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.sh"
    outside.write_text("mine")
    (hooks / "readme.txt").unlink()
    (hooks / "readme.txt").symlink_to(outside)
    writer = FileWriter(tmp_path / "kept")
    for action in actions(plan(hooks, [FileItem("readme.txt", "file", 0o644, b"theirs")])):
        writer.apply("hooks", hooks, action)
    assert outside.read_text() == "mine"
    assert (hooks / "readme.txt").read_text() == "theirs"
    assert not (hooks / "readme.txt").is_symlink()
    writer.undo()
    assert (hooks / "readme.txt").readlink() == outside


def test_a_folder_where_a_file_was_is_left_alone(hooks: Path) -> None:
    found = plan(hooks, [FileItem("empty", "file", 0o644, b"x"), FileItem("readme.txt", "directory", 0o755)])
    assert actions(found) == ()
    assert [note.problem for note in found.notes] == [
        "is a directory now and was a file: it is left alone",
        "is a file now and was a directory: it is left alone",
    ]


def test_set_user_id_bits_are_not_given(hooks: Path) -> None:
    found = plan(hooks, [FileItem("tool", "file", 0o4755, b"x")])
    assert actions(found)[0].item.mode == 0o755
    assert "set-user-id" in found.notes[0].problem


def test_a_failed_write_leaves_nothing_behind(hooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archived, before = change_everything(hooks), state(hooks)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    writer = FileWriter(tmp_path / "kept")
    wanted = actions(plan(hooks, archived))
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="No space left"):
        list(map(lambda action: writer.apply("hooks", hooks, action), wanted))
    monkeypatch.undo()
    writer.undo()
    assert state(hooks) == before
    assert (tmp_path / "kept" / JOURNAL_NAME).exists()
