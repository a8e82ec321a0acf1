"""The cluster that a restore in place replaces: where it is, whether it may be replaced, and what only it holds."""

import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from lifeboat.errors import LifeboatError, PermanentError, SettingsError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.restore.place import Place, Step, control_of, interrupted_over
from lifeboat.operations.restore.results import RestoreOrder
from lifeboat.operations.restore.starting import start_command
from lifeboat.operations.wal.archives import wal_archive
from lifeboat.postgres import postmaster
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import socket_dir_for
from lifeboat.postgres.restoring import UNFINISHED_SUFFIX
from lifeboat.recovery.wal_tail import save_tail
from lifeboat.storage.destination import DestinationUnavailable
from lifeboat.storage.durable import make_directories, write_durably
from lifeboat.storage.manifest import Manifest
from lifeboat.wal.coverage import ArchiveUnreadable

# ReplicationSlotOnDisk (slot.c): magic, checksum, version, length, the slot's name of 64 bytes, its database.
_SLOT_DATABASE_AT = 16 + 64
_PATRONI_FILES = ("patroni.dynamic.json", "postgresql.base.conf")
DANGERS = ("patroni", "standbys", "slots")


class InPlaceRefused(PermanentError):
    """The platform's cluster cannot be replaced as it is."""


@dataclass(frozen=True)
class OldCluster:
    """The platform's own data directory; `control` is what control_of said of it when its WAL was saved."""

    data_dir: Path
    cluster: Cluster
    dangers: dict[str, str] = field(default_factory=dict)
    stamp: str = ""
    control: str | None = None

    @property
    def has_data(self) -> bool:
        """Whether there is anything to keep."""
        return self.data_dir.is_dir() and any(self.data_dir.iterdir())

    @property
    def is_stopped(self) -> bool:
        """Whether no server runs on it."""
        return not self.cluster.is_running()

    @property
    def must_stop(self) -> bool:
        """Whether a server runs on it that is not one of a killed restore's own, which the next one ends itself."""
        return not self.is_stopped and interrupted_over(self.data_dir) is None

    @property
    def wal_elsewhere(self) -> str | None:
        """A note, where its pg_wal is a link to another folder: the restored one's is not."""
        link = self.data_dir / "pg_wal"
        if not link.is_symlink():
            return None
        return (
            f"pg_wal of {self.data_dir} is a link to {link.resolve()}; the restored one has it in the data directory: "
            "to have it on another volume again, move it there and link it before the server is started"
        )

    @property
    def kept_as(self) -> Path:
        """The old data directory's name after the restore."""
        return self.data_dir.with_name(f"{self.data_dir.name}.before-restore-{self.stamp}")

    def refuse_other_system(self, manifest: Manifest) -> None:
        """Raise InPlaceRefused when the data are of another cluster than the backup."""
        if not (self.data_dir / "global" / "pg_control").is_file():
            return
        found = self.cluster.controldata()["Database system identifier"]
        if found != manifest.system_identifier:
            raise InPlaceRefused(
                f"{self.data_dir} is the cluster {found}, and {manifest.label} is of {manifest.system_identifier}",
                hint="Restore to a new directory: `--to new:DIR`.",
            )


def find_old_cluster(installation: Installation, order: RestoreOrder) -> OldCluster:
    """The cluster that is to be replaced; raises InPlaceRefused and SettingsError."""
    data_dir = _data_dir(installation, order)
    if data_dir.is_mount() and not order.discard_old:
        raise InPlaceRefused(
            f"{data_dir} is a mount point and cannot be renamed",
            hint="Restore to a new directory in it, and start the server there: `--to new:DIR`.",
        )
    cluster = Cluster(data_dir, installation.tools, socket_dir_for(data_dir.parent))
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    old = OldCluster(data_dir, cluster, dict(_dangers(installation, data_dir, cluster)), stamp)
    unaccepted = [why for name, why in old.dangers.items() if name not in order.acknowledged]
    if unaccepted:
        raise InPlaceRefused(
            f"the cluster in {data_dir} must not be replaced just so: {'; '.join(unaccepted)}",
            hint="Take it away, or accept it by name: "
            + " ".join(f"--accept {name}" for name in old.dangers if name not in order.acknowledged),
        )
    return old


def refuse_used(old: OldCluster) -> None:
    """Raise InPlaceRefused when the old cluster was started since its WAL was saved: what came then would be lost."""
    if old.is_stopped and control_of(old.data_dir) == old.control:
        return
    raise InPlaceRefused(
        f"the server of {old.data_dir} was started again while the restore was made, and may have new transactions",
        hint="Stop what starts it (systemd, a supervisor, Patroni), then run the restore again: "
        "the old data are as that server left them.",
    )


def refuse_running(old: OldCluster, order: RestoreOrder) -> None:
    """Raise InPlaceRefused when the server runs and may not be stopped."""
    if order.stop_server or not old.must_stop:
        return
    raise InPlaceRefused(
        f"the server of {old.data_dir} runs (pid {old.cluster.postmaster_pid()})",
        hint="Stop it, and whatever starts it again, or give --stop-server.",
    )


def remember_place(installation: Installation, old: OldCluster) -> None:
    """Have the data directory on disk where it is found while its server, which tells it, is stopped.

    It is overwritten by the next restore in place, and asked for only where an interrupted one is. Where it cannot be
    written, the next one has to be told `--data-dir`.
    """
    path = _remembered(installation)
    try:
        make_directories(path.parent)
        write_durably(path, f"{old.data_dir}\n".encode(), mode=0o600)
    except OSError as error:
        LOG.warning("where the data directory is was not noted in %s: %s", path, error)


def stop_old_cluster(installation: Installation, old: OldCluster, order: RestoreOrder) -> None:
    """See that the server is stopped; raises InPlaceRefused when it runs and may not be stopped."""
    refuse_running(old, order)
    if old.is_stopped:
        return
    LOG.warning("stopping the server of %s", old.data_dir)
    if installation.settings.platform.embedded:
        installation.embedded.stop()
    else:
        old.cluster.stop()


def end_interrupted_server(old: OldCluster) -> None:
    """End the isolated server that a killed restore over the old data has left running there."""
    postmaster.end_servers_in(old.data_dir)


def refuse_unknown_tail(installation: Installation, order: RestoreOrder) -> None:
    """Raise InPlaceRefused when the old data are to be written over, and nothing says which of their WAL is archived.

    That the archive can be read is asked again once the server is stopped.
    """
    if not order.discard_old or not installation.settings.wal.archive:
        return
    try:
        wal_archive(installation, order.destination).listing()
    except (ArchiveUnreadable, DestinationUnavailable) as error:
        raise InPlaceRefused(
            f"what of the server's last WAL is archived is not known, and --discard-old would lose it: {error.message}",
            hint=error.hint or "Have the archive readable again, or leave out --discard-old.",
        ) from error


def save_old_tail(installation: Installation, old: OldCluster, order: RestoreOrder, folder: Path) -> tuple[str, ...]:
    """Save the WAL that the archive lacks; notes where that is not known. Raises InPlaceRefused, OSError."""
    if not installation.settings.wal.archive:
        return ()
    pg_wal = old.data_dir / "pg_wal"
    refuse_unknown_tail(installation, order)
    try:
        listing = wal_archive(installation, order.destination).listing()
    except (ArchiveUnreadable, DestinationUnavailable) as error:
        LOG.warning("the server's last WAL is not used: %s", error.message)
        return (f"what of its WAL only the old server had is in pg_wal of its kept data alone: {error.message}",)
    saved = save_tail(pg_wal.resolve(), folder, listing, installation.run_as)
    LOG.info("saved %d WAL files that were not archived", len(saved))
    return ()


@contextmanager
def telling_of_old_server(installation: Installation, old: OldCluster, place: Place) -> Iterator[None]:
    """Add to whatever goes wrong what has become of the old server and its data."""
    try:
        yield
    except LifeboatError as error:
        error.hint = " ".join(filter(None, (error.hint, _state(installation, old, place))))
        raise
    except BaseException:
        LOG.error("%s", _state(installation, old, place))
        raise


def _state(installation: Installation, old: OldCluster, place: Place) -> str:
    step = place.journal.step if place.journal is not None else None
    if place.is_between_renames:
        return (
            f"The old data are moved to {place.journal and place.journal.kept}, the restored ones are whole in "
            f"{place.data_dir}: run the same restore again, which puts them in their place."
        )
    if place.is_written_over:
        return (
            f"The server of {old.data_dir} is stopped and its data are partly written over: do not start it, run the "
            "same restore again."
        )
    if step is Step.READY and place.is_in_place:
        return f"The restored data are in their place, {old.data_dir}; the server is not started."
    if not old.is_stopped:
        return f"The server of {old.data_dir} runs, with its own data."
    return (
        f"The old server is stopped, and the restore has changed nothing in its data, {old.data_dir}: start it as you "
        f"always do, or with `{start_command(installation, old.data_dir)}`."
    )


def _data_dir(installation: Installation, order: RestoreOrder) -> Path:
    if order.data_dir is not None:
        return order.data_dir.resolve()
    if installation.settings.platform.embedded:
        return installation.embedded.cluster.data_dir.resolve()
    try:
        with closing(connect(installation.source, application_name="lifeboat restore", autocommit=True)) as session:
            row = session.execute("SELECT pg_catalog.current_setting('data_directory')").fetchone()
    except (LifeboatError, psycopg.Error) as error:
        # A restore has stopped it, and was killed since.
        if (interrupted := _interrupted(installation)) is not None:
            return interrupted
        said = error.message if isinstance(error, LifeboatError) else " ".join(str(error).split())
        raise SettingsError(
            f"the server cannot be asked where its data directory is: {said}", hint="Name it: `--data-dir DIR`."
        ) from error
    if row is None:
        raise SettingsError("the server does not tell where its data directory is", hint="Name it: `--data-dir DIR`.")
    return Path(str(row[0])).resolve()


def _remembered(installation: Installation) -> Path:
    return installation.settings.state_dir / f"in-place-{installation.settings.platform.cluster}"


def _interrupted(installation: Installation) -> Path | None:
    """The data directory of the last restore in place, where that has left anything unfinished."""
    path = _remembered(installation)
    try:
        data_dir = Path(path.read_text().removesuffix("\n"))
    except OSError as error:
        LOG.debug("no restore in place is noted: %s", error)
        return None
    return data_dir if data_dir.with_name(f"{data_dir.name}{UNFINISHED_SUFFIX}").is_dir() else None


def _dangers(installation: Installation, data_dir: Path, cluster: Cluster) -> Iterator[tuple[str, str]]:
    if found := [name for name in _PATRONI_FILES if (data_dir / name).exists()]:
        yield "patroni", f"Patroni manages it ({found[0]} is there) and would start or rebuild it by itself"
    slots = dict(_slots(data_dir))
    if logical := [name for name, is_logical in slots.items() if is_logical]:
        yield "slots", f"it has logical replication slots, which a restore loses: {', '.join(sorted(logical))}"
    physical = [name for name, is_logical in slots.items() if not is_logical]
    connected: list[str] = []
    try:
        # The server that a killed restore over the old data has left there is cut off, and has none.
        if cluster.is_running() and interrupted_over(data_dir) is None:
            connected = _standbys(installation)
    except (LifeboatError, psycopg.Error) as error:
        said = error.message if isinstance(error, LifeboatError) else " ".join(str(error).split())
        known = f" but for {', '.join(sorted(physical))}" if physical else ""
        yield "standbys", f"its standbys are not known{known}, for the server runs and cannot be asked: {said}"
        return
    if physical or connected:
        names = ", ".join(sorted({*physical, *connected}))
        yield "standbys", f"standbys follow it, which cannot follow the restored one: {names}"


def _slots(data_dir: Path) -> Iterator[tuple[str, bool]]:
    folder = data_dir / "pg_replslot"
    for state in sorted(folder.glob("*/state")) if folder.is_dir() else ():
        data = state.read_bytes()
        if len(data) >= _SLOT_DATABASE_AT + 4:
            (database,) = struct.unpack_from("=I", data, _SLOT_DATABASE_AT)
            yield state.parent.name, database != 0


def _standbys(installation: Installation) -> list[str]:
    query = (
        "SELECT coalesce(nullif(application_name, ''), pid::text) FROM pg_catalog.pg_stat_replication"
        " WHERE application_name NOT IN ('pg_basebackup', 'pg_receivewal')"
    )
    with closing(connect(installation.source, application_name="lifeboat restore", autocommit=True)) as session:
        return [str(row[0]) for row in session.execute(query).fetchall()]
