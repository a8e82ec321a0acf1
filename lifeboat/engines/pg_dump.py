"""Logical backups with pg_dump (directory format, parallel) and pg_dumpall for roles and tablespaces.

The payload is `dump/` and `globals.sql`. The dump reads under the snapshot that the fingerprint was taken under.
"""

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lifeboat.engines.engine import EngineFailed, Parent, Progress, Taken, Watch
from lifeboat.engines.failures import run_tool
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import (
    ConnectionInfo,
    connect,
    server_major,
    server_version,
    single_value,
    system_identifier,
)
from lifeboat.postgres.folders import give_to, make_private_dir
from lifeboat.settings.backups import PgDumpSettings
from lifeboat.storage.checked import CheckedReader
from lifeboat.storage.manifest import BackupType, Manifest, RestoreStep
from lifeboat.storage.repository import BackupRepository

DUMP_FOLDER = "dump"
GLOBALS_FILE = "globals.sql"
# A new server has these already: they cannot be created from a dump.
_INITIAL_DATABASES = {"postgres", "template1"}
_BLOCK_BYTES = 1024 * 1024
_TABLESPACE = re.compile(r"^(?:CREATE|ALTER) TABLESPACE |^(?:GRANT|REVOKE) .* ON TABLESPACE ")


@dataclass(frozen=True)
class PgDumpEngine:
    """Takes a portable copy of one database, and of the cluster's globals."""

    tools: PgTools
    connection: ConnectionInfo
    settings: PgDumpSettings
    timeout_seconds: float

    @property
    def name(self) -> str:
        """`pg_dump`."""
        return "pg_dump"

    def types(self, server_major: int) -> frozenset[BackupType]:
        """Logical backups only, of every supported version."""
        del server_major
        return frozenset({BackupType.LOGICAL})

    def take(self, folder: Path, kind: BackupType, label: str, parent: Parent | None, watch: Watch) -> Taken:
        """Dump the globals, then the database under `watch.snapshot`; see Engine.take."""
        del parent
        with closing(connect(self.connection, application_name=f"lifeboat {label}", autocommit=True)) as session:
            identifier, version, major = system_identifier(session), server_version(session), server_major(session)
            self._refuse_older_tools(major)
            details = _database_details(session)
        watch.on_begun()
        if self.settings.globals != "none":
            self._dump_globals(folder / GLOBALS_FILE, watch)
        self._dump(folder / DUMP_FOLDER, watch)
        return Taken(
            engine=self.name,
            type=kind,
            pg_version=version,
            system_identifier=identifier,
            compression="gzip" if self.settings.compression_level else "none",
            tools={"pg_restore": str(self.tools.version("pg_dump").major), "psql": "any"},
            restore=_restore_steps(label, self.settings, str(details["database"])),
            database=str(details["database"]),
            details=details | {"globals": self.settings.globals},
        )

    def restore_files(self, repository: BackupRepository, chain: list[Manifest], target: Path, watch: Watch) -> None:
        """Copy the dump into `target`, every object checked; see Engine.restore_files. `load` puts it into a server."""
        (manifest,) = chain
        done = 0
        make_private_dir(target, self.tools.user)
        for item in manifest.objects:
            path = target / item.name
            if path.parent != target:
                make_private_dir(path.parent, self.tools.user)
            with repository.open_object(manifest.label, item.name) as stream, path.open("xb") as file:
                checked = CheckedReader(stream, item, f"{manifest.label}/{item.name}")
                while block := checked.read(_BLOCK_BYTES):
                    file.write(block)
                    watch.on_progress(Progress(done + checked.size_bytes, manifest.size_bytes))
                checked.finish()
            path.chmod(0o600)
            give_to(path, self.tools.user)
            done += item.size_bytes

    def load_server(self, folder: Path, server: ConnectionInfo, *, database: str, watch: Watch) -> None:
        """Load a copied dump into a new scratch server: the roles, and the dumped `database` under its own name.

        Tablespaces are left out: their folders are those of the live server. So are subscriptions. Raises EngineFailed
        and the errors that `name_failure` knows.
        """
        if (folder / GLOBALS_FILE).exists():
            self._load_globals(folder / GLOBALS_FILE, server)
        there = database in _INITIAL_DATABASES
        into = server.with_database(database) if there else server
        self._load(folder, into, create=not there, watch=watch, options=["--no-tablespaces"])

    def load_database(self, folder: Path, database: ConnectionInfo, *, watch: Watch) -> None:
        """Load a copied dump into an existing, empty database; the server's roles are left alone.

        Subscriptions are left out. Raises as `load_server`.
        """
        self._load(folder, database, create=False, watch=watch)

    def _load(
        self, folder: Path, into: ConnectionInfo, *, create: bool, watch: Watch, options: Sequence[str] = ()
    ) -> None:
        # A copy must not subscribe: it would share the source's slot at the publisher, and cannot be dropped.
        fixed = ["--no-subscriptions", "--exit-on-error", "--no-password"]
        words = [*(["--create"] if create else []), *options, *fixed]
        words.append(f"--jobs={self.settings.jobs}")
        words += [f"--dbname={into.database}", str(folder / DUMP_FOLDER)]
        self._run("pg_restore", words, f"loading the dump of {into.database}", watch, into)

    def _dump(self, folder: Path, watch: Watch) -> None:
        words = [
            "--format=directory",
            f"--file={folder}",
            f"--jobs={self.settings.jobs}",
            f"--compress={self.settings.compression_level}",
            "--no-password",
            "--verbose",
            *([f"--snapshot={watch.snapshot}"] if watch.snapshot else []),
        ]
        self._run("pg_dump", words, f"pg_dump of {self.connection.redacted()}", watch, self.connection)

    def _dump_globals(self, path: Path, watch: Watch) -> None:
        hide = [] if self.settings.globals == "with-passwords" else ["--no-role-passwords"]
        words = ["--globals-only", "--no-password", f"--file={path}", *hide]
        self._run("pg_dumpall", words, "pg_dumpall of roles and tablespaces", watch, self.connection)
        path.chmod(0o600)

    def _run(self, program: str, words: list[str], doing: str, watch: Watch, connection: ConnectionInfo) -> None:
        run_tool(
            self.tools,
            program,
            words,
            doing=doing,
            watch=watch,
            connection=connection,
            timeout_seconds=self.timeout_seconds,
        )

    def _load_globals(self, path: Path, server: ConnectionInfo) -> None:
        script = "".join(
            line for line in path.read_text("utf-8").splitlines(keepends=True) if not _TABLESPACE.search(line)
        )
        faults: list[str] = []

        def keep_errors(line: str) -> None:
            # Roles that are there already (the superuser at least) are no fault: psql goes on after an error.
            if "ERROR:" in line and "already exists" not in line:
                faults.append(line)

        self.tools.run(
            "psql",
            ["--no-psqlrc", "--quiet", "--no-password", "--file=-"],
            connection=server,
            timeout_seconds=self.timeout_seconds,
            stdin=script.encode(),
            on_stderr_line=keep_errors,
        )
        if faults:
            raise EngineFailed(f"loading the roles failed: {faults[0]}")

    def _refuse_older_tools(self, server: int) -> None:
        ours = self.tools.version("pg_dump")
        if ours.major < server:
            raise EngineFailed(
                f"pg_dump {ours.text} cannot dump a server of version {server}",
                hint="Install the client programs of the server's version and name their folder in `platform.bin_dir`.",
            )


def _database_details(session: psycopg.Connection) -> dict[str, object]:
    found: dict[str, object] = single_value(
        session,
        "SELECT pg_catalog.json_build_object('database', datname, 'encoding', pg_catalog.pg_encoding_to_char(encoding),"
        " 'collate', datcollate, 'ctype', datctype, 'database_size_bytes', pg_catalog.pg_database_size(oid))"
        " FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
    )
    return found


def _restore_steps(label: str, settings: PgDumpSettings, database: str) -> list[RestoreStep]:
    steps = []
    into = f"-d {database}" if database in _INITIAL_DATABASES else "--create -d postgres"
    dump = f"$REPOSITORY/{label}/{DUMP_FOLDER}"
    if settings.globals != "none":
        steps.append(
            RestoreStep(
                title="Load roles and tablespaces (an error that a role already exists is harmless)",
                commands=[f'psql -X -q -d postgres -f "$REPOSITORY/{label}/{GLOBALS_FILE}"'],
            )
        )
    steps.append(
        RestoreStep(
            title=f"Create and load database {database} on a new server (set PGHOST, PGPORT and PGUSER)",
            commands=[f'pg_restore {into} --exit-on-error -j {settings.jobs} "{dump}"'],
        )
    )
    return steps
