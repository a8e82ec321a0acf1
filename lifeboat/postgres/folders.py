"""Folders that the server's account owns or can reach, and short ones for unix sockets."""

import hashlib
import os
import pwd
from contextlib import suppress
from pathlib import Path

from lifeboat import commands
from lifeboat.errors import PermanentError

# sun_path holds 108 bytes with the closing zero (unix(7)); PostgreSQL adds `/.s.PGSQL.<port>`.
_SOCKET_PATH_MAX_BYTES = 107
_SOCKET_NAME_MAX_BYTES = len("/.s.PGSQL.65535.lock")


class FolderUnreachable(PermanentError):
    """The account that the server runs as cannot enter or write a folder."""


def account_ids(user: str | None) -> tuple[int, int]:
    """The user and group id that the server's files belong to: our own unless root works for `user`."""
    if user is None or os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def give_to(path: Path, user: str | None) -> None:
    """Make `user` the owner of one file or folder; only root can, everybody else owns what it makes."""
    uid, gid = account_ids(user)
    if os.geteuid() == 0 and path.lstat().st_uid != uid:
        os.chown(path, uid, gid, follow_symlinks=False)


def give_tree_to(path: Path, user: str | None) -> None:
    """Make `user` the owner of a folder and of all that is in it; symbolic links are not followed."""
    give_to(path, user)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            give_to(Path(folder, name), user)


def make_private_dir(path: Path, user: str | None) -> Path:
    """Create a folder of mode 0700 owned by `user`, or take it over from us.

    Raises FolderUnreachable for somebody else's.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    uid, gid = account_ids(user)
    try:
        # By descriptor, so that nothing can be put in its place between the look and the change.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _not_ours(path) from error
    try:
        if os.fstat(descriptor).st_uid not in {uid, os.geteuid()}:
            raise _not_ours(path)
        if os.geteuid() == 0:
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
    return path


def _not_ours(path: Path) -> FolderUnreachable:
    return FolderUnreachable(
        f"{path} exists and belongs to another account or is no folder",
        hint="Remove it or choose another folder: a server's folder must be its own.",
    )


def create_file(path: Path, user: str | None, content: bytes = b"") -> None:
    """Create a file of mode 0600 owned by `user`, with its content on disk. Raises FileExistsError."""
    # Exclusive and without following links: root writes here into folders that the server's account owns.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if os.geteuid() == 0:
            os.fchown(file.fileno(), *account_ids(user))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def check_reachable(path: Path, user: str | None) -> None:
    """Raise FolderUnreachable unless `user` can enter `path`, naming the parent folder that is closed."""
    if user is None or _can(user, "-x", path):
        return
    for folder in [*reversed(path.resolve().parents), path.resolve()]:
        if not _can(user, "-x", folder):
            raise FolderUnreachable(
                f"the account {user} cannot enter {folder}, so PostgreSQL cannot use {path}",
                hint=f"Choose a folder outside private ones, or allow it to pass: chmod o+x {folder}.",
            )


def _can(user: str, right: str, path: Path) -> bool:
    done = commands.run(["test", right, path], user=user, timeout_seconds=30, accept=(0, 1))
    return done.returncode == 0


def socket_dir_for(base: Path) -> Path:
    """`base`/run if a socket's path there is short enough, else a folder below /tmp.

    The name is derived from `base`, so that a later process finds the same one, whatever its TMPDIR is. The folder is
    not created; `make_private_dir` refuses one that somebody else has made.
    """
    wanted = base / "run"
    if len(os.fsencode(wanted)) + _SOCKET_NAME_MAX_BYTES <= _SOCKET_PATH_MAX_BYTES:
        return wanted
    digest = hashlib.sha256(os.fsencode(base.resolve())).hexdigest()[:12]
    return Path("/tmp") / f"lifeboat-{os.geteuid()}-{digest}"  # noqa: S108 - private, see make_private_dir
