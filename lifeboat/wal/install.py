"""Put the archive program where the server's account can run it, and prepare the archive for it."""

import json
import os
import re
import shlex
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lifeboat import commands
from lifeboat.errors import PermanentError
from lifeboat.postgres.folders import check_reachable, give_to
from lifeboat.settings.wal import WalSettings
from lifeboat.storage.durable import make_directories, write_durably
from lifeboat.wal import archive_program
from lifeboat.wal.archive_program import layout
from lifeboat.wal.interpreter import RUN_OPTIONS, TRY_TIMEOUT_SECONDS, ArchiveProgramUnusable, choose_python
from lifeboat.wal.names import is_segment_size

PROGRAM_NAME = "archive_program.pyz"
CONFIG_NAME = "wal.json"
# Not 1 or 2, which Python itself uses when it cannot start: recovery would take them for "not there".
ABSENT_CODE = 44
_SEGMENT_FOLDER = re.compile(r"[0-9A-F]{16}")


class ArchiveNotReady(PermanentError):
    """The archive's folder cannot be prepared or belongs to another system."""


def _plain_absolute(path: str) -> str:
    if not os.path.isabs(path) or "\0" in path or "\n" in path or not path.isprintable():
        raise ValueError("it must be an absolute path of printable characters")
    return path


def _segment_size(size_bytes: int) -> int:
    if not is_segment_size(size_bytes):
        raise ValueError("it must be a power of two from 1 MB to 1 GB")
    return size_bytes


class WalConfig(BaseModel):
    """What wal.json holds: one server's archive at one filesystem destination."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    path: Annotated[str, AfterValidator(_plain_absolute)]
    cluster: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    system_identifier: str = Field(pattern=r"^[0-9]{1,20}$")
    segment_size_bytes: Annotated[int, AfterValidator(_segment_size)]
    compression_level: int = Field(ge=0, le=9)
    retries: int = Field(ge=0, le=10)
    retry_delay_seconds: float = Field(ge=0)
    minimum_free_bytes: int = Field(ge=0)

    @classmethod
    def of(
        cls,
        settings: WalSettings,
        destination: Path,
        cluster: str,
        *,
        system_identifier: str,
        segment_size_bytes: int,
    ) -> "WalConfig":
        """The configuration of `cluster`'s archive at the folder `destination`; raises ValidationError."""
        return cls(
            path=str(destination),
            cluster=cluster,
            system_identifier=system_identifier,
            segment_size_bytes=segment_size_bytes,
            compression_level=settings.compression_level,
            retries=settings.fetch_retries,
            retry_delay_seconds=settings.fetch_retry_delay_seconds,
            minimum_free_bytes=settings.minimum_free_bytes,
        )


@dataclass(frozen=True)
class InstalledProgram:
    """The installed program and the server settings that call it."""

    program: Path
    config: Path
    python: Path
    user: str | None

    @property
    def archive_command(self) -> str:
        """For postgresql.conf, still to be quoted for it (`postgres.conf.quote_setting`)."""
        # Above 125 the archiver restarts and pg_stat_archiver does not count the failure.
        return f'{self._call("push")} "%p" "%f" || exit 1'

    @property
    def restore_command(self) -> str:
        """For postgresql.conf, still to be quoted for it; any doubt ends in 255, which stops recovery."""
        call = f'{self._call("fetch")} --absent-code {ABSENT_CODE} "%p" "%f"'
        return f"{call}; case $? in 0) exit 0;; {ABSENT_CODE}) exit 1;; *) exit 255;; esac"

    def _call(self, command: str) -> str:
        words = [self.python, *RUN_OPTIONS, self.program, command, "--config", self.config]
        return shlex.join(str(word) for word in words).replace("%", "%%")


def install_archive_program(
    state_folder: Path, config: WalConfig, *, user: str | None, python: Path | None = None
) -> InstalledProgram:
    """Write the program and wal.json into `state_folder`, each atomically, and find a Python that runs it.

    `user` is the server's account (None: ours), `python` the setting. The folder serves one cluster. Raises
    ArchiveProgramUnusable and FolderUnreachable. `check_archive` then tries the archive itself.
    """
    make_directories(state_folder, mode=0o755)
    check_reachable(state_folder, user)
    program, rendered = state_folder / PROGRAM_NAME, state_folder / CONFIG_NAME
    write_durably(program, packed_program(), mode=0o644)
    write_durably(rendered, config.model_dump_json(indent=2).encode() + b"\n", mode=0o644)
    return InstalledProgram(program, rendered, choose_python(program, user=user, configured=python), user)


def prepare_archive(config: WalConfig, *, user: str | None) -> Path:
    """Create the archive's folders for the server's account `user`, and the marker that says whose it is.

    Does nothing to an archive of this system. The destination itself must be there. Raises ArchiveNotReady.
    """
    archive = Path(layout.archive_folder(config.path, config.cluster))
    try:
        if not Path(config.path).is_dir():
            raise ArchiveNotReady(
                f"the destination {config.path} is not there", hint="Mount it or create it; then try again."
            )
        if not (archive / layout.MARKER_NAME).exists():
            _create_archive(archive, config, user)
        layout.require_owner(str(archive), config.system_identifier, config.segment_size_bytes)
    except layout.ArchiveError as error:
        raise ArchiveNotReady(str(error), hint=error.hint) from error
    except OSError as error:
        raise ArchiveNotReady(
            f"cannot prepare the WAL archive {archive}: {error}",
            hint="Check the rights on the destination and that it is mounted writable.",
        ) from error
    return archive


def _create_archive(archive: Path, config: WalConfig, user: str | None) -> None:
    text = json.dumps(config.model_dump(include={"system_identifier", "segment_size_bytes"}))
    if archive.is_dir() and any(_SEGMENT_FOLDER.fullmatch(path.name) for path in archive.iterdir()):
        raise ArchiveNotReady(
            f"{archive} holds WAL, but not the marker {layout.MARKER_NAME} that says whose it is",
            hint=f"If it is this server's, put the file back with this content: {text}.",
        )
    for folder in make_directories(archive / layout.HISTORY_FOLDER, mode=layout.FOLDER_MODE):
        give_to(folder, user)
    write_durably(archive / layout.MARKER_NAME, f"{text}\n".encode(), mode=layout.FILE_MODE)
    give_to(archive / layout.MARKER_NAME, user)


def check_archive(installed: InstalledProgram, *, for_push: bool = True) -> None:
    """Have the program try, as the server's account, what it will need; raises ArchiveProgramUnusable."""
    call: list[str | Path] = [installed.python, *RUN_OPTIONS, installed.program]
    purpose = "push" if for_push else "fetch"
    try:
        commands.run(
            [*call, "check", "--config", installed.config, purpose],
            user=installed.user,
            timeout_seconds=TRY_TIMEOUT_SECONDS,
        )
    except commands.CommandFailed as error:
        message, _, hint = error.stderr_tail.partition(" HINT: ")
        who = installed.user or "this account"
        raise ArchiveProgramUnusable(
            f"the archive program fails as {who}: {message}",
            hint=hint or "Run `lifeboat doctor`: it shows which folder or program is closed to that account.",
        ) from error


def packed_program() -> bytes:
    """The archive program as one file that Python runs; the same bytes for the same source."""
    source = Path(archive_program.__file__).parent
    package = archive_program.__name__.split(".")
    members = {"/".join([*package[:depth], "__init__.py"]): b"" for depth in range(1, len(package))}
    members |= {"/".join([*package, path.name]): path.read_bytes() for path in sorted(source.glob("*.py"))}
    main = f"{archive_program.__name__}.__main__"
    start = f"import os, sys\nfrom {main} import run_as_program\nos._exit(run_as_program(sys.argv[1:]))\n"
    members["__main__.py"] = start.encode()
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)  # its default date is fixed
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
