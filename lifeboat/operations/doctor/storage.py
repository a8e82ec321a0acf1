"""Doctor's checks of destinations, the scratch folder, and whether restore drills can be held."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lifeboat.errors import LifeboatError
from lifeboat.operations.doctor.absent import check_absent, existing_folder
from lifeboat.operations.doctor.results import CheckResult, failed, ok, skipped, warning
from lifeboat.operations.doctor.source import SourceFacts
from lifeboat.operations.doctor.tools import programs_fix
from lifeboat.operations.installation import Installation
from lifeboat.postgres.folders import check_reachable
from lifeboat.storage.filesystem import FilesystemDestination

_GIGABYTE = 1_000_000_000


def check_destinations(installation: Installation, facts: SourceFacts | None) -> Iterator[CheckResult]:
    """Can the tools' account write to each destination, and is there room for the next backup?"""
    for name in installation.settings.destinations:
        title = f"destination {name}"
        destination = installation.destination(name)
        if not destination.path.is_dir():
            yield check_absent(installation, destination, facts)
            continue
        try:
            destination.check()
        except LifeboatError as error:
            yield failed(title, error.message, error.hint or f"Check {destination.path}.")
            continue
        free = destination.free_bytes()
        who = f" by {installation.run_as}" if installation.run_as else ""
        told = f"{destination.describe()} can be written{who}, {_gigabytes(free)} free above the minimum"
        needed = _next_backup_bytes(installation, name, facts)
        if needed is not None and free < needed:
            yield warning(
                title,
                f"{told}, and the next full backup may take {_gigabytes(needed)}",
                "lifeboat retention plan   # shows what would return; or move the destination to a larger volume",
            )
        else:
            yield ok(title, told)
        yield from _same_disk(installation, destination, facts)


def check_scratch(installation: Installation, facts: SourceFacts | None) -> Iterator[CheckResult]:
    """Can the server's account use the folder of scratch clusters, and is there room for the whole cluster?"""
    scratch, user = installation.settings.scratch_dir, installation.tools.user
    there = existing_folder(scratch)
    check_reachable(there, user)
    if not os.access(there, os.W_OK):
        yield failed("scratch folder", f"{there} cannot be written", f"chown {os.geteuid()} {there}")
        return
    free = shutil.disk_usage(there).free
    if facts is not None and free < facts.cluster_bytes:
        yield warning(
            "scratch folder",
            f"{_gigabytes(free)} free below {scratch}, and the cluster has {_gigabytes(facts.cluster_bytes)}: "
            "drills of it would be refused",
            "Move `state_dir` to a volume with more space than the cluster takes.",
        )
        return
    told = "" if there == scratch else ", will be made by the first drill"
    yield ok("scratch folder", f"{scratch}, {_gigabytes(free)} free{told}")


def check_drill(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """Can the programs at hand run what was backed up?"""
    tools = installation.tools
    ours = tools.version("postgres")
    physical = installation.settings.backup.engine != "pg_dump"
    if ours.major != facts.major if physical else ours.major < facts.major:
        yield failed(
            "drill",
            f"PostgreSQL {ours.text} cannot run what PostgreSQL {facts.version} wrote: no restore drill can pass",
            programs_fix(facts.major),
        )
        return
    folder = _extension_folder(tools.bin_dir, ours.major)
    if folder is None:
        yield skipped("drill", "where these programs keep extensions is not known")
        return
    lacking = [name for name in facts.extensions if not (folder / f"{name}.control").exists()]
    if lacking:
        yield warning(
            "drill",
            f"the source uses extensions that {tools.bin_dir} lacks: {', '.join(lacking)}",
            f"Install them for PostgreSQL {ours.major} on this machine, as they are on the server.",
        )
        return
    yield ok("drill", f"PostgreSQL {ours.text} can run a restored backup")


def _next_backup_bytes(installation: Installation, name: str, facts: SourceFacts | None) -> int | None:
    """About what the next backup takes: as much as the last full one, else the cluster's size uncompressed."""
    if not installation.settings.signing_key_file.exists():
        # To read manifests would make a key, which doctor must not.
        return facts.cluster_bytes if facts is not None else None
    try:
        sizes = [
            stored.manifest.size_bytes
            for stored in installation.repository(name).backups()
            if not stored.manifest.parent_label
        ]
    except LifeboatError:
        sizes = []
    if sizes:
        return max(sizes[-3:])
    return facts.cluster_bytes if facts is not None else None


def _same_disk(
    installation: Installation, destination: FilesystemDestination, facts: SourceFacts | None
) -> Iterator[CheckResult]:
    data = facts.settings.get("data_directory") if facts is not None and facts.local else None
    if data is None or installation.settings.platform.embedded:
        return
    try:
        together = Path(data).stat().st_dev == destination.path.stat().st_dev
    except OSError:
        return
    if together:
        yield warning(
            f"destination {destination.name}: disk",
            f"{destination.path} is on the same filesystem as {data}: they would be lost together",
            "Mount another disk or machine there, and set `mount = true` for the destination.",
        )


def _extension_folder(bin_dir: Path, major: int) -> Path | None:
    candidates = (
        bin_dir.parent / "share" / "postgresql" / "extension",
        bin_dir.parent / "share" / "extension",
        Path("/usr/share/postgresql") / str(major) / "extension",
    )
    return next((folder for folder in candidates if folder.is_dir()), None)


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / _GIGABYTE:.1f} GB"
