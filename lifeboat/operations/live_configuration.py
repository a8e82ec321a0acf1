"""The platform's configuration as it is now: to be compared with an archive, or kept before one is applied."""

from pathlib import Path
from tempfile import TemporaryDirectory

from lifeboat.configuration.archive import write_archive
from lifeboat.configuration.plan import ApplyPlan
from lifeboat.configuration.reading import read_archive
from lifeboat.errors import LifeboatError, PermanentError
from lifeboat.operations.configuration_archives import LoadedArchive
from lifeboat.operations.export_configuration import collect_archive, export_configuration
from lifeboat.operations.installation import Installation
from lifeboat.operations.results import BackupTaken
from lifeboat.postgres.connections import connect

LIVE = "live"


class NoWayBack(PermanentError):
    """The present configuration could not be kept, so nothing was applied over it."""


def read_live(installation: Installation) -> LoadedArchive:
    """What an export would archive now; nothing of it is stored. Raises as export_configuration."""
    limit = installation.settings.configuration.max_total_bytes
    with connect(installation.source, application_name="lifeboat config diff", autocommit=True) as session:
        archive = collect_archive(installation, session)
    # Written and read back, so that it went through all that a stored archive went through.
    with TemporaryDirectory(prefix="lifeboat-config-") as folder:
        written = write_archive(archive, Path(folder))
        return LoadedArchive(LIVE, read_archive(written.path, max_total_bytes=limit))


def keep_present(installation: Installation) -> BackupTaken:
    """Archive the present configuration at the default destination, before another one is applied; raises NoWayBack."""
    try:
        return export_configuration(installation)
    except LifeboatError as error:
        why = f" ({error.hint})" if error.hint else ""
        raise NoWayBack(
            f"nothing was applied: the present configuration cannot be kept, so there would be no way back: "
            f"{error.message}{why}",
            hint="Mend that, or pass --no-undo to apply the archive without a way back.",
        ) from error


def way_back(label: str, plan: ApplyPlan) -> str:
    """The command that takes an applied plan back, from the archive `label` of the time before it."""
    words = ["lifeboat", "config", "apply", label]
    adds_rows = any(rows.inserts for rows in plan.rows)
    if adds_rows or any(action.now is None for files in plan.files for action in files.actions):
        # What applying has added is not in the archive of the time before.
        words.append("--prune")
    for section in sorted(plan.only or ()):
        words += ["--only", section]
    return " ".join(words)
