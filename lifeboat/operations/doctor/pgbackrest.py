"""Doctor's checks of pgBackRest: program, rights, configuration, stanza, and WAL that arrives in its repository."""

from collections.abc import Iterator
from contextlib import closing

from psycopg import sql

from lifeboat.commands import ToolMissing
from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.engines.pgbackrest.configuration import read_configuration
from lifeboat.engines.pgbackrest.engine import PgBackRestEngine
from lifeboat.engines.pgbackrest.info import read_info
from lifeboat.engines.pgbackrest.stanza import check_stanza, refuse_other_cluster
from lifeboat.operations.doctor.archive import check_archive_timeout, check_archiver
from lifeboat.operations.doctor.results import CheckResult, failed, ok, warning
from lifeboat.operations.doctor.source import SourceFacts
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect

_CHECK_SECONDS = 30.0
_SET_UP = "lifeboat wal install   # on the server's machine; it prints the statements for the server"
# What pgBackRest calls as its own user (its user guide, "Configure Archiving" and "Perform a Backup").
_FUNCTIONS = (
    "pg_catalog.pg_backup_start(text, boolean)",
    "pg_catalog.pg_backup_stop(boolean)",
    "pg_catalog.pg_switch_wal()",
    "pg_catalog.pg_create_restore_point(text)",
)
_LACKING = "SELECT f FROM unnest(%s::text[]) f WHERE NOT has_function_privilege(f, 'EXECUTE')"


def check_pgbackrest(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """Can pgBackRest take backups of the server, and does WAL reach its repository?"""
    if not facts.local:
        yield failed(
            "pgbackrest",
            "the server runs on another machine, and pgBackRest copies the data directory itself",
            "Run Lifeboat on the server's machine, with its socket in `platform.dsn`.",
        )
        return
    engine = installation.pgbackrest()
    try:
        program = engine.program()
    except ToolMissing as error:
        yield failed("pgbackrest", error.message, "apt-get install pgbackrest")
        return
    major, minor = program.version()
    yield ok("pgbackrest", f"{program.program} {major}.{minor}")
    yield from _check_rights(installation, facts)
    if read_configuration(program.config) is None:
        yield failed("pgbackrest: stanza", f"{program.config} was not written yet", _SET_UP)
        return
    yield from _check_configuration(engine, program)
    info = read_info(program)
    if not info.exists:
        yield failed(
            "pgbackrest: stanza", f"there is no stanza {program.stanza} in {engine.folders.repository}", _SET_UP
        )
        return
    refuse_other_cluster(info, engine.identity())
    yield ok("pgbackrest: stanza", f"{program.stanza} in {engine.folders.repository} is this cluster's")
    yield from _check_archiving(installation, facts, program)


def _check_rights(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    if facts.role.superuser:
        return
    with closing(connect(installation.source, application_name="lifeboat doctor", autocommit=True)) as session:
        lacking = [str(row[0]) for row in session.execute(_LACKING, [list(_FUNCTIONS)])]
    name = sql.Identifier(facts.role.name).as_string()
    fixes = [f"GRANT EXECUTE ON FUNCTION {function} TO {name};" for function in lacking]
    if not facts.role.reads_all_settings:
        lacking.append("pg_read_all_settings")
        fixes.append(f"GRANT pg_read_all_settings TO {name};")
    if lacking:
        yield failed("pgbackrest: role", f"{facts.role.name} lacks {', '.join(lacking)}", "\n".join(fixes))


def _check_configuration(engine: PgBackRestEngine, program: PgBackRest) -> Iterator[CheckResult]:
    if read_configuration(program.config) != engine.configuration():
        yield warning(
            "pgbackrest: configuration",
            f"{program.config} is not what settings and server say now; the next backup writes it anew",
            "lifeboat pgbackrest config   # shows what will be written",
        )


def _check_archiving(installation: Installation, facts: SourceFacts, program: PgBackRest) -> Iterator[CheckResult]:
    command, library = facts.settings.get("archive_command", ""), facts.settings.get("archive_library")
    reasons = []
    if library:
        reasons.append(f"archive_library is {library!r}, so archive_command is not called")
    if not facts.is_on("archive_mode"):
        reasons.append("archive_mode is off")
    if command != program.archive_command:
        reasons.append(f"archive_command is {command!r}, not {program.archive_command!r}")
    if reasons:
        yield failed("archiving", "; ".join(reasons), _SET_UP)
        return
    yield from check_archive_timeout(installation, facts)
    yield from check_archiver(facts.archiver, facts.segment_size_bytes)
    check_stanza(program, timeout_seconds=_CHECK_SECONDS)
    yield ok("archiving", f"a segment that was switched just now has reached stanza {program.stanza}")
