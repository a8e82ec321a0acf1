"""Doctor's checks of the catalog."""

from collections.abc import Iterator
from contextlib import closing

from lifeboat.catalog.errors import CatalogNotMigrated, CatalogUnavailable
from lifeboat.operations.doctor.results import CheckResult, failed, ok, skipped, warning
from lifeboat.operations.doctor.source import SourceFacts
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect, system_identifier


def check_catalog(installation: Installation, facts: SourceFacts | None) -> Iterator[CheckResult]:
    """Does the catalog answer, has it the tables of this version, and does it survive a restore of the platform?"""
    own = installation.settings.catalog.dsn
    if own is None and facts is None:
        yield skipped("catalog", "it is in the platform's database, which cannot be asked now")
        return
    try:
        installation.catalog.ping()
    except CatalogUnavailable as error:
        yield failed("catalog", error.message, error.hint or "Start its server.")
        return
    except CatalogNotMigrated as error:
        yield failed("catalog", error.message, "lifeboat catalog migrate")
        return
    yield ok("catalog", "reachable and migrated")
    if facts is not None and _same_cluster(installation, facts):
        yield warning(
            "catalog: place",
            "it is in the protected cluster: it is down when that is down, and an in-place restore rewinds it, with "
            "the names that it knows: of tables made later, previews and restore points then show numbers",
            'Create a database on another server, set `dsn = "…"` in section [catalog], run lifeboat catalog migrate.',
        )


def _same_cluster(installation: Installation, facts: SourceFacts) -> bool:
    own = installation.settings.catalog.dsn
    if own is None:
        return True
    with closing(connect(own.get_secret_value(), application_name="lifeboat doctor", autocommit=True)) as session:
        return system_identifier(session) == facts.system_identifier
