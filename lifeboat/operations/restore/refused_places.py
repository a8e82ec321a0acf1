"""Where nothing may be restored to: folders that are somebody's whole, or that backups would take along."""

from collections.abc import Iterator
from pathlib import Path

from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.place import PlaceTaken


def refuse_owned(installation: Installation, folder: Path) -> None:
    """Raise PlaceTaken for a folder inside of a data directory, a destination, a repository or Lifeboat's own files."""
    place = folder.resolve()
    for what, owned in _owned(installation, place):
        if place.is_relative_to(owned):
            raise PlaceTaken(f"{folder} is inside of {what}, {owned}", hint="Name a folder that is outside of it.")


def _owned(installation: Installation, place: Path) -> Iterator[tuple[str, Path]]:
    # From above: a folder of a single database has that file, too.
    for above in reversed(place.parents):
        if (above / "PG_VERSION").is_file():
            yield "a data directory", above
    settings = installation.settings
    for name, destination in settings.destinations.items():
        yield f"the destination {name}", destination.path.resolve()
    if (repository := settings.engines.pgbackrest.repository_path) is not None:
        yield "pgBackRest's repository", repository.resolve()
    yield "Lifeboat's own files (`state_dir`)", settings.state_dir.resolve()
