"""Takes the names of relations into the catalog, for the WAL index, where an agent may not be running."""

import psycopg

from lifeboat.agent.observing import observe_databases
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation


def observe_names(installation: Installation) -> list[str]:
    """Observe every database of the source; returns sentences on what could not be, and raises nothing for it.

    The agent does it all the time; without one, this is what names are known from.
    """
    try:
        found = observe_databases(installation.source, installation.catalog, installation.settings.platform.cluster)
    except (LifeboatError, psycopg.Error) as error:
        why = error.message if isinstance(error, LifeboatError) else str(error).strip().split("\n")[0]
        return [f"names of relations could not be observed, new ones are told by number: {why}"]
    return [f"names of relations in {name} could not be observed: {why}" for name, why in found.unseen.items()]
