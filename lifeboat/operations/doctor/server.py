"""Doctor's checks of the source: rights, replication, server settings, clock."""

from collections.abc import Iterator

from psycopg import pq, sql

from lifeboat.operations.doctor.results import CheckResult, failed, ok, skipped, warning
from lifeboat.operations.doctor.source import SourceFacts
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import ConnectionInfo
from lifeboat.storage.manifest import BackupType

_MAX_SKEW_SECONDS = 2.0
_SUMMARIES_SINCE = 17
_RELOAD = "SELECT pg_reload_conf();"


def check_rights(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """May the role do what backups do, and does it see every row?"""
    role = facts.role
    name = sql.Identifier(role.name).as_string()
    fixes: list[tuple[str, str]] = []
    if not role.superuser:
        if not role.replication and _wants_physical(installation):
            fixes.append(("REPLICATION", f"ALTER ROLE {name} REPLICATION;"))
        if not role.reads_all_data:
            fixes.append(("the right to read every table", f"GRANT pg_read_all_data TO {name};"))
        if not role.bypasses_row_security and facts.row_security_tables:
            what = f"BYPASSRLS ({facts.row_security_tables} tables have row security)"
            fixes.append((what, f"ALTER ROLE {name} BYPASSRLS;"))
        if not role.may_read_control:
            fixes.append(("pg_control_system()", f"GRANT EXECUTE ON FUNCTION pg_control_system() TO {name};"))
    if not role.may_connect_for_lock:
        fixes.append(("access to the database postgres", f"GRANT CONNECT ON DATABASE postgres TO {name};"))
    if fixes:
        yield failed(
            "role", f"{role.name} lacks {', '.join(what for what, _ in fixes)}", "\n".join(fix for _, fix in fixes)
        )
    else:
        yield ok("role", f"{role.name} may do all that backups need{_beyond(facts)}")
    if not role.superuser and not role.reads_all_settings:
        yield warning(
            "role: server settings",
            f"{role.name} does not see where the server's files are: the configuration archive goes without them",
            f"GRANT pg_read_all_settings TO {name};",
        )
    yield from _passwords(installation, facts)


def check_replication(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """Does the server accept the kind of connection that pg_basebackup opens?"""
    if not _wants_physical(installation):
        yield skipped("replication connection", f"the engine {installation.settings.backup.engine} needs none")
        return
    if facts.pooled:
        yield skipped("replication connection", "a connection pooler is in between")
        return
    role = sql.Identifier(facts.role.name).as_string()
    info = installation.source.with_parameters(replication="true", connect_timeout="10")
    connection = pq.PGconn.connect(info.dsn.encode())
    try:
        if connection.status == pq.ConnStatus.OK:
            answer = connection.exec_(b"IDENTIFY_SYSTEM")
            if answer.status == pq.ExecStatus.TUPLES_OK:
                yield ok("replication connection", "the server accepts one")
                return
        said = _without_secrets(connection.get_error_message(), info)
    finally:
        connection.finish()
    rule = (
        f"local replication {role} peer" if _by_socket(info) else f"host replication {role} <address>/32 scram-sha-256"
    )
    yield failed(
        "replication connection",
        f"pg_basebackup cannot connect: {said}",
        f"Add this line to pg_hba.conf, in front of the others, then `{_RELOAD}`: {rule}",
    )


def check_server_settings(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """Can the server serve a physical backup, and incremental ones?"""
    if facts.in_recovery:
        yield warning(
            "server settings",
            "the source is a standby",
            "Give the primary's address in `platform.dsn`: WAL is archived there.",
        )
    if facts.pooled:
        yield failed(
            "server settings",
            "the connection goes through a connection pooler such as PgBouncer",
            "Give the server's own address in `platform.dsn`: the lock of backups lives in a server session.",
        )
    restart = _restart_fix(installation, facts)
    faults: list[tuple[str, str]] = []
    physical = _wants_physical(installation)
    if (physical or installation.settings.wal.archive) and facts.settings.get("wal_level") == "minimal":
        faults.append(("wal_level is minimal", "ALTER SYSTEM SET wal_level = 'replica';"))
    if physical and facts.free_wal_senders < 1:
        value = int(facts.settings["max_wal_senders"])
        faults.append(
            (f"all {value} WAL senders are taken", f"ALTER SYSTEM SET max_wal_senders = {max(10, value + 5)};")
        )
    if physical and facts.free_slots < 1:
        value = int(facts.settings["max_replication_slots"])
        fix = f"ALTER SYSTEM SET max_replication_slots = {max(10, value + 5)};"
        faults.append((f"all {value} replication slots are taken", fix))
    if faults:
        fixes = "\n".join([*(fix for _, fix in faults), restart])
        yield failed("server settings", "; ".join(what for what, _ in faults), fixes)
    elif not facts.pooled:
        yield ok(
            "server settings", f"wal_level {facts.settings['wal_level']}, {facts.free_wal_senders} WAL senders free"
        )
    yield from _summaries(installation, facts)


def check_clock(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """Do the server and we mean the same second?"""
    del installation
    skew = facts.clock_skew_seconds
    if abs(skew) > _MAX_SKEW_SECONDS:
        direction = "ahead of" if skew > 0 else "behind"
        yield warning(
            "clock",
            f"the server's clock is {abs(skew):.1f} s {direction} ours: restore points and labels would not agree",
            "timedatectl set-ntp true   # on both machines",
        )
    else:
        yield ok("clock", f"{abs(skew):.1f} s apart")


def _summaries(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    if not _wants_physical(installation):
        return
    if BackupType.INCREMENTAL not in installation.basebackup.types(facts.major):
        yield skipped(
            "incremental backups",
            f"PostgreSQL {facts.major} has none ({_SUMMARIES_SINCE} does): scheduled ones are skipped, "
            "others become full ones",
        )
    elif facts.is_on("summarize_wal"):
        yield ok("incremental backups", "summarize_wal is on")
    else:
        yield warning(
            "incremental backups",
            "summarize_wal is off: scheduled differential and incremental backups are skipped, others become full ones",
            f"ALTER SYSTEM SET summarize_wal = on;\n{_RELOAD}",
        )


def _passwords(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    if installation.settings.engines.pg_dump.globals == "with-passwords" and not facts.role.superuser:
        yield failed(
            "role: password hashes",
            f"`engines.pg_dump.globals` wants password hashes, which {facts.role.name} may not read",
            'Set `engines.pg_dump.globals = "without-passwords"`, or let a superuser take the backups.',
        )


def _beyond(facts: SourceFacts) -> str:
    return "" if facts.role.may_start_backup else " (not pg_backup_start: of the engines only pgBackRest calls it)"


def _wants_physical(installation: Installation) -> bool:
    return installation.settings.backup.engine == "basebackup"


def _restart_fix(installation: Installation, facts: SourceFacts) -> str:
    if installation.settings.platform.embedded:
        return "Then stop `lifeboat up` and start it again."
    data = facts.settings.get("data_directory")
    return (
        f"Then restart the server: pg_ctl -D {data} restart, or systemctl restart postgresql"
        if data
        else "Then restart the server."
    )


def _by_socket(info: ConnectionInfo) -> bool:
    return not info.host or info.host.startswith("/")


def _without_secrets(text: str, info: ConnectionInfo) -> str:
    said = " ".join(text.split())
    for secret in info.secrets:
        said = said.replace(secret, "***")
    return said
