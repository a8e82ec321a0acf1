"""The platform's configuration as it is now: to be compared with an archive, or kept before one is applied."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lifeboat.configuration.archive import write_archive
from lifeboat.configuration.plan import ApplyPlan
from lifeboat.configuration.reading import read_archive
from lifeboat.configuration.way_back import find_gaps
from lifeboat.errors import LifeboatError, PermanentError
from lifeboat.operations.configuration_archives import LoadedArchive
from lifeboat.operations.export_configuration import collect_archive, export_configuration
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect
from lifeboat.settings.own_command import own_command

LIVE = "live"
_GAPS_SHOWN = 10


class NoWayBack(PermanentError):
    """The present configuration could not be kept, so nothing was applied over it."""


@dataclass(frozen=True)
class KeptPresent:
    """The archive of the time before, the command that goes back to it, and what that command leaves different."""

    label: str
    command: str
    gaps: tuple[str, ...]


def read_live(installation: Installation) -> LoadedArchive:
    """What an export would archive now; nothing of it is stored. Raises as export_configuration."""
    limit = installation.settings.configuration.max_total_bytes
    with connect(installation.source, application_name="lifeboat config diff", autocommit=True) as session:
        archive = collect_archive(installation, session)
    # Written and read back, so that it went through all that a stored archive went through.
    with TemporaryDirectory(prefix="lifeboat-config-") as folder:
        written = write_archive(archive, Path(folder))
        return LoadedArchive(LIVE, read_archive(written.path, max_total_bytes=limit))


def keep_present(installation: Installation, plan: ApplyPlan) -> KeptPresent:
    """Archive the present configuration at the default destination, before the plan is carried out.

    Raises NoWayBack, also where the plan replaces or removes what no archive could bring back.
    """
    try:
        # Looked at before anything is stored: a refused apply must not become what `latest` means.
        gaps = find_gaps(plan, read_live(installation).archive)
        if not gaps.lost:
            label = export_configuration(installation).label
            return KeptPresent(label, way_back(label, plan, installation.settings_file), gaps.left)
    except LifeboatError as error:
        why = f" ({error.hint})" if error.hint else ""
        raise NoWayBack(
            f"nothing was applied: the present configuration cannot be kept, so there would be no way back: "
            f"{error.message}{why}",
            hint="Mend that, or pass --no-undo to apply the archive without a way back.",
        ) from error
    more = len(gaps.lost) - _GAPS_SHOWN
    shown = ", ".join(gaps.lost[:_GAPS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    raise NoWayBack(
        f"nothing was applied: it would replace or remove what no archive could bring back: {shown}",
        hint="Keep that yourself and pass --no-undo, or apply other sections with --only.",
    )


def way_back(label: str, plan: ApplyPlan, settings_file: Path | None) -> str:
    """The command that takes an applied plan back, from the archive `label` of the time before it."""
    words = ["config", "apply", label]
    adds_rows = any(rows.inserts for rows in plan.rows)
    if adds_rows or any(action.now is None for files in plan.files for action in files.actions):
        # What applying has added is not in the archive of the time before.
        words.append("--prune")
    for section in sorted(plan.only or ()):
        words += ["--only", section]
    return own_command(settings_file, *words)
