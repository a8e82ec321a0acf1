"""Sets up WAL archiving for a server that is not ours: the program beside it, and the statements that turn it on."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from lifeboat.errors import PermanentError, SettingsError
from lifeboat.operations.doctor.source import SourceFacts, read_source
from lifeboat.operations.installation import Installation
from lifeboat.operations.pgbackrest.stanza import ensure_stanza
from lifeboat.operations.platform import install_archiving

RELOAD = "SELECT pg_reload_conf();"


class NotTheServersMachine(PermanentError):
    """Archiving is set up on the server's own machine, by root or the server's account."""


@dataclass(frozen=True)
class ArchiveSetup:
    """What was installed, `told` in a few words, and what a superuser has to run in the server now."""

    program: Path
    statements: list[str]
    needs_restart: bool
    told: str


def set_up_archiving(installation: Installation) -> ArchiveSetup:
    """Install the archive program for the platform's server, prepare the archive, and try both as its account.

    Where pgBackRest archives, its configuration is written and its stanza made instead. Safe to call again; the
    server's own settings are left to its administrator. Raises NotTheServersMachine, SettingsError, and what
    install_archiving or operations.pgbackrest.stanza.ensure_stanza raises.
    """
    if installation.settings.platform.embedded:
        raise SettingsError("the embedded server is set up by `lifeboat up`", hint="Start it: `lifeboat up`.")
    if not installation.settings.wal.archive:
        raise SettingsError("`wal.archive` is false", hint="Set it to true where WAL should be archived.")
    facts = read_source(installation)
    if not facts.local or facts.system_identifier is None:
        why = "runs on another machine" if not facts.local else "does not let the role read pg_control_system()"
        raise NotTheServersMachine(
            f"the platform's server {why}", hint="Run this there, with a superuser's `platform.dsn`."
        )
    user = account_to_try(installation, facts)
    if user != installation.run_as:
        raise SettingsError(
            f"the server runs as {user}, PostgreSQL's programs would run as {installation.run_as}",
            hint=f'Set `run_as = "{user}"` in section [platform].',
        )
    if installation.settings.pgbackrest_archives:
        return _set_up_pgbackrest(installation, facts)
    installed = install_archiving(
        installation, system_identifier=facts.system_identifier, segment_size_bytes=facts.segment_size_bytes
    )
    return ArchiveSetup(
        installed.program,
        _statements(installation, facts, installed.archive_command),
        not facts.is_on("archive_mode"),
        f"{installed.program} works as the server's account",
    )


def _set_up_pgbackrest(installation: Installation, facts: SourceFacts) -> ArchiveSetup:
    installation.destination(installation.settings.wal.destination).check()
    engine = ensure_stanza(installation)
    program = engine.program()
    return ArchiveSetup(
        program.program,
        _statements(installation, facts, program.archive_command),
        not facts.is_on("archive_mode"),
        f"{program.config} is written, and stanza {program.stanza} is in {engine.folders.repository}",
    )


def account_to_try(installation: Installation, facts: SourceFacts) -> str | None:
    """Whom to run the archive program as, to do it as the server will; None for ourselves.

    Raises NotTheServersMachine when we may not become the server's account.
    """
    ours = pwd.getpwuid(os.geteuid()).pw_name
    account = facts.account or installation.run_as or ours
    if account == ours:
        return None
    if os.geteuid() != 0:
        raise NotTheServersMachine(
            f"the server runs as the account {account}, and {ours} may not try programs as that account",
            hint=f"Run it as root or as {account}: runuser -u {account} -- lifeboat doctor",
        )
    return account


def _statements(installation: Installation, facts: SourceFacts, archive_command: str) -> list[str]:
    statements = [f"ALTER SYSTEM SET archive_command = {sql.quote(archive_command).strip()};"]
    if facts.settings.get("archive_library"):
        statements.append("ALTER SYSTEM RESET archive_library;")
    if not facts.is_on("archive_mode"):
        statements.append("ALTER SYSTEM SET archive_mode = on;")
    timeout_seconds = installation.settings.wal.archive_timeout_seconds
    if facts.settings.get("archive_timeout") == "0" and timeout_seconds:
        statements.append(f"ALTER SYSTEM SET archive_timeout = '{timeout_seconds}s';")
    return [*statements, RELOAD]
