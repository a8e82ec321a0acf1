"""Doctor's checks of the programs that backups and drills start."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lifeboat import commands
from lifeboat.operations.doctor.results import CheckResult, failed, ok, skipped, warning
from lifeboat.operations.doctor.source import SourceFacts
from lifeboat.operations.installation import Installation
from lifeboat.storage.manifest import BackupType

_NEEDED = (
    *("pg_basebackup", "pg_dump", "pg_dumpall", "pg_restore", "psql"),
    *("initdb", "pg_controldata", "pg_ctl", "pg_waldump", "postgres"),
)
_DEBIAN_ROOT = Path("/usr/lib/postgresql")
_CONNECT_TIMEOUT_SECONDS = 30.0


def check_tools(installation: Installation) -> Iterator[CheckResult]:
    """Are PostgreSQL's programs there, and can their account execute them?"""
    tools = installation.tools
    missing = [program for program in _NEEDED if not tools.has(program)]
    if missing:
        yield failed(
            "programs",
            f"{tools.bin_dir} lacks {', '.join(missing)}",
            "apt-get install postgresql   # or name a complete folder in `platform.bin_dir`",
        )
        return
    who = f", run as {tools.user}" if tools.user else ""
    yield ok("programs", f"PostgreSQL {tools.version('postgres').text} in {tools.bin_dir}{who}")
    if not tools.has("pg_amcheck"):
        yield warning(
            "programs: pg_amcheck",
            "it is not there: restore drills go without the check of indexes and heaps",
            "apt-get install postgresql-client",
        )


def check_system_programs(installation: Installation) -> Iterator[CheckResult]:
    """Are the programs outside PostgreSQL there?"""
    del installation
    if shutil.which("setpriv") is None:
        say = failed if os.geteuid() == 0 else warning
        why = (
            "PostgreSQL's programs cannot be run as another account"
            if os.geteuid() == 0
            else "a killed run leaves its tools"
        )
        yield say("system programs", f"setpriv is not there: {why}", "apt-get install util-linux")
        return
    absent = [program for program in ("tar", "gzip") if shutil.which(program) is None]
    if absent:
        yield warning(
            "system programs",
            f"not there: {', '.join(absent)}; the commands in a backup's manifest use them",
            f"apt-get install {' '.join(absent)}",
        )
        return
    yield ok("system programs", "setpriv, tar, gzip")


def check_versions(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """Are the programs new enough for the server?"""
    tools = installation.tools
    wanted = {"pg_basebackup", "pg_dump"} if installation.settings.backup.engine == "basebackup" else {"pg_dump"}
    old = sorted(program for program in wanted if tools.version(program).major < facts.major)
    if old:
        ours = tools.version(old[0]).text
        yield failed(
            "client versions",
            f"{', '.join(old)} {ours} cannot back up a server of version {facts.version}",
            programs_fix(facts.major),
        )
        return
    yield ok("client versions", f"{tools.version('pg_dump').text} for a server of version {facts.version}")
    by_pgbackrest = installation.settings.backup.engine == "pgbackrest"
    incremental = BackupType.INCREMENTAL in installation.basebackup.types(facts.major)
    if incremental and not by_pgbackrest and not tools.has("pg_combinebackup"):
        yield failed(
            "pg_combinebackup",
            "it is not there: incremental backups could be taken, and not restored",
            programs_fix(facts.major),
        )


def check_connection_of_tools(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """Do PostgreSQL's own programs, as their account, reach the server as we do?"""
    del facts
    tools = installation.tools
    if not tools.has("psql"):
        yield skipped("programs' connection", "psql is not there")
        return
    words = ["--no-psqlrc", "--no-password", "--tuples-only", "--command=SELECT 1"]
    try:
        tools.run("psql", words, connection=installation.source, timeout_seconds=_CONNECT_TIMEOUT_SECONDS)
    except commands.CommandFailed as error:
        said = " ".join(error.stderr_tail.split())
        yield failed(
            "programs' connection", f"psql in {tools.bin_dir} cannot connect: {said}", _connection_fix(said, tools.user)
        )
        return
    yield ok("programs' connection", f"psql connects{f' as the account {tools.user}' if tools.user else ''}")


def programs_fix(major: int) -> str:
    """How to have the programs of a major version: what is installed already, or what to install."""
    found = _DEBIAN_ROOT / str(major) / "bin"
    setting = f'`bin_dir = "{found}"` in section [platform] of lifeboat.toml'
    if (found / "pg_basebackup").exists():
        return f"Set {setting}."
    return f"apt-get install postgresql-{major}   # then set {setting}"


def _connection_fix(said: str, user: str | None) -> str:
    if "SSL" in said or "TLS" in said.upper():
        return (
            "These programs were built without TLS: install the system's and name their folder in `platform.bin_dir`."
        )
    if "eer authentication failed" in said:
        return f"Map the account {user} to the role in pg_ident.conf, or use a password in `platform.dsn`."
    return "Check pg_hba.conf, and that the files which `platform.dsn` names (certificates) are open to that account."
