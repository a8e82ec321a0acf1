"""Checks an installation from its settings to its last archived WAL segment, and says how to fix what is wrong."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from lifeboat.errors import LifeboatError, SettingsError
from lifeboat.operations.doctor.agent import check_agent
from lifeboat.operations.doctor.archive import check_archiving
from lifeboat.operations.doctor.catalog import check_catalog
from lifeboat.operations.doctor.pgbackrest import check_pgbackrest
from lifeboat.operations.doctor.prefect import check_prefect
from lifeboat.operations.doctor.results import CheckResult, CheckStatus, attempt, failed, ok, skipped
from lifeboat.operations.doctor.server import check_clock, check_replication, check_rights, check_server_settings
from lifeboat.operations.doctor.settings import check_settings_file, check_signing_key
from lifeboat.operations.doctor.source import SourceFacts, read_source
from lifeboat.operations.doctor.storage import check_destinations, check_drill, check_scratch
from lifeboat.operations.doctor.tools import (
    check_connection_of_tools,
    check_system_programs,
    check_tools,
    check_versions,
)
from lifeboat.operations.installation import Installation
from lifeboat.operations.platform import psql_command

__all__ = ["CheckResult", "CheckStatus", "run_checks"]


def _check_archiving(installation: Installation, facts: SourceFacts) -> Iterable[CheckResult]:
    by_pgbackrest = installation.settings.pgbackrest_archives
    return check_pgbackrest(installation, facts) if by_pgbackrest else check_archiving(installation, facts)


_OF_THE_SOURCE: dict[str, Callable[[Installation, SourceFacts], Iterable[CheckResult]]] = {
    "role": check_rights,
    "replication connection": check_replication,
    "server settings": check_server_settings,
    "clock": check_clock,
    "client versions": check_versions,
    "programs' connection": check_connection_of_tools,
    "archiving": _check_archiving,
    "agent": check_agent,
    "drill": check_drill,
}


def run_checks(start: Installation | SettingsError) -> Iterator[CheckResult]:
    """Make every check that can be made, in order; each result comes as soon as it is known.

    `start` is the installation, or the error that its settings ended in: then nothing else can be checked.
    """
    if isinstance(start, SettingsError):
        yield failed("settings", start.message, start.hint or "Correct the settings file.")
        return
    yield from attempt("settings", partial(check_settings_file, start))
    yield from attempt("signing key", partial(check_signing_key, start))
    yield from attempt("programs", partial(check_tools, start))
    yield from attempt("system programs", partial(check_system_programs, start))
    facts, told = _look_at_source(start)
    yield told
    if facts is None:
        yield skipped(", ".join(_OF_THE_SOURCE), "not checked, since the source cannot be asked")
    else:
        for name, check in _OF_THE_SOURCE.items():
            yield from attempt(name, partial(check, start, facts))
    yield from attempt("catalog", partial(check_catalog, start, facts))
    yield from attempt("destinations", partial(check_destinations, start, facts))
    yield from attempt("scratch folder", partial(check_scratch, start, facts))
    yield from attempt("prefect", partial(check_prefect, start))


def _look_at_source(start: Installation) -> tuple[SourceFacts | None, CheckResult]:
    try:
        if start.settings.platform.embedded and not start.embedded.is_running():
            return None, skipped("source", "the embedded PostgreSQL does not run now; `lifeboat up` starts it")
        facts = read_source(start)
    except LifeboatError as error:
        return None, failed("source", error.message, error.hint or "Check `platform.dsn`.")
    found = f"PostgreSQL {facts.version}, database {facts.database}, {facts.cluster_bytes / 1e9:.1f} GB"
    if start.settings.platform.embedded:
        found += f"; embedded: {psql_command(start)}"
    return facts, ok("source", found)
