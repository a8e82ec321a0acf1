"""A chain's files, WAL replayed to the target, and the landing proven, in a cluster that is cut off from everything."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from lifeboat.engines.engine import Engine, Watch
from lifeboat.engines.pgbackrest.engine import PgBackRestEngine
from lifeboat.errors import LifeboatError, PermanentError, SettingsError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.restore.asking import Reached, RestoredServer
from lifeboat.operations.restore.landing import with_commits
from lifeboat.operations.restore.needed_space import certain_bytes
from lifeboat.operations.restore.planning import PlannedRestore
from lifeboat.operations.restore.room import require_free
from lifeboat.operations.restore.scratch import Phase, RecoveryStuck
from lifeboat.operations.restore.tablespaces import TablespaceMap
from lifeboat.operations.wal.archives import pgbackrest_with_wal
from lifeboat.postgres.cluster import Cluster, ServerStartFailed
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.connections import AuthenticationFailed, ConnectionInfo, SourceUnavailable
from lifeboat.postgres.isolation import isolate
from lifeboat.recovery.landing import LOG_LINE_PREFIX, Landing, landing_faults, read_landing
from lifeboat.recovery.planning import RestorePlan
from lifeboat.recovery.spans import SpanEnd
from lifeboat.verification.integrity import check_directory
from lifeboat.wal.install import WalConfig, check_archive, install_archive_program

_POLL_SECONDS = 0.2
_NO_LIMIT_SECONDS = 5 * 365 * 86400.0  # pg_ctl counts tenths of seconds in 31 bits
_SETTINGS: dict[str, SettingValue] = {"allow_in_place_tablespaces": True, "log_line_prefix": LOG_LINE_PREFIX}
# What a server says of ENOSPC, in English: our servers' lc_messages; and of its own settings (xlogrecovery.c).
_FULL, _OF_SETTINGS = "No space left on device", "insufficient parameter settings"
# Planning knows only damage that was found: it names the nearest moment then.
_VERIFY = (
    "Archived WAL may be damaged: find that with `lifeboat wal verify --all`, and plan the restore again; where the "
    "target cannot be reached, the plan names the nearest moment that can."
)


class RecoveryFailed(PermanentError):
    """Replay ended before the target, or in an error: what was restored is not what was asked for."""


class LandingRefuted(PermanentError):
    """Replay ended somewhere else than at the target; `landing` says where."""

    def __init__(self, message: str, landing: Landing, log_path: Path) -> None:
        super().__init__(message, hint=f"Do not use what was restored; its log is {log_path}. {_VERIFY}")
        self.landing = landing


@dataclass(frozen=True)
class Site:
    """Where a cluster is restored: a data directory that is not there yet, and a private folder for what it needs.

    With `pause` replay stops at the target and the server stays a read-only one, unless it holds locks there. `tail`
    is a folder of save_tail. With `over` the data directory is there, with another state of the same cluster, and only
    what differs is written.
    """

    data_dir: Path
    work_dir: Path
    socket_dir: Path
    pause: bool = False
    tablespaces: TablespaceMap = field(default_factory=TablespaceMap)
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    tail: Path | None = None
    over: bool = False


@dataclass(frozen=True)
class Recovered:
    """A running server on the restored data, and the proof of where it stands."""

    cluster: Cluster
    connection: ConnectionInfo
    landing: Landing
    dropped_libraries: tuple[str, ...] = ()


def restore_chain(installation: Installation, planned: PlannedRestore, site: Site, phase: Phase) -> None:
    """Bring the files of the plan's backup to the site and check them.

    Raises BackupDamaged, EngineFailed, DestinationFull, NoRoomForRestore, OSError.
    """
    engine = installation.engine(planned.manifest.engine, planned.material.repository.destination.name)

    def differences(folder: Path) -> list[str]:
        return [str(problem) for problem in check_directory(folder, folder / "backup_manifest").problems]

    with phase("restore files"):
        watch = Watch(on_progress=phase.amount, check_files=differences, check_combined=differences)
        if site.over:
            delta_engine(engine).restore_over(planned.manifest, site.data_dir, watch, site.tablespaces.folders)
            return
        engine.restore_files(planned.material.repository, planned.chain, site.data_dir, watch)
        site.tablespaces.place(site.data_dir, installation.run_as)


def delta_engine(engine: Engine) -> PgBackRestEngine:
    """An engine that can write over old data only what differs; raises SettingsError for one that cannot."""
    if isinstance(engine, PgBackRestEngine):
        return engine
    raise SettingsError(
        f"the engine {engine.name} cannot restore over old data",
        hint="Leave out --discard-old: the old data directory is kept beside the restored one.",
    )


def replay(installation: Installation, planned: PlannedRestore, site: Site, phase: Phase) -> Recovered:
    """Replay WAL to the target in isolation, prove the landing, and leave the server running.

    Replay may take as long as it moves. Raises RecoveryFailed, RecoveryStuck, LandingRefuted, ServerStartFailed,
    IsolationRefused; the server is stopped then.
    """
    plan, patience_seconds = planned.plan, installation.settings.drills.timeout_seconds
    with phase("replay"):
        recovery: dict[str, SettingValue] = {
            "restore_command": _restore_command(installation, planned, site),
            **plan.settings,
        }
        if any(name.startswith("recovery_target") and name != "recovery_target_timeline" for name in plan.settings):
            recovery["recovery_target_action"] = "pause" if site.pause else "promote"
        isolated = isolate(
            site.data_dir,
            tools=installation.tools,
            socket_dir=site.socket_dir,
            recovery=recovery,
            extra_settings={**_SETTINGS, **_reading(plan), **site.settings},
            allowed_roots=[site.work_dir, *site.tablespaces.folders.values()],
        )
        cluster = isolated.cluster
        log = _Log(cluster.log_path, cluster.log_path.stat().st_size if cluster.log_path.is_file() else 0)
        server = _server_of(installation, planned, cluster)
        with _stopped_on_failure(installation, cluster):
            reached = _recover(server, log, patience_seconds)
            if site.pause and server.end_locks():
                reached = _reached(server, log, patience_seconds)
            connection = server.connection()
    with _stopped_on_failure(installation, cluster), phase("prove landing"):
        landing = read_landing(log.text())
        if landing.last_ended_at is None:
            landing = replace(landing, last_ended_at=reached.replayed_at)
        if faults := landing_faults(plan, landing):
            said = f"the restore to {plan.target} did not land there: {'; '.join(faults)}"
            raise LandingRefuted(said, landing, log.path)
        landing = with_commits(installation, planned, landing, reached.position, site.work_dir)
        if plan.point is not None:
            # By its position as well, for there may be several of that name.
            landing = replace(landing, name=plan.target.name)
        LOG.info("landed: %s", landing)
        if not site.pause:
            end_reading_ahead(installation, site.data_dir)
    return Recovered(cluster, connection, landing, isolated.dropped_libraries)


def _reading(plan: RestorePlan) -> dict[str, SettingValue]:
    # It reads ahead of replay, into what is missing or damaged behind the target, and that ends the server.
    return {} if plan.span.end is SpanEnd.ARCHIVE else {"recovery_prefetch": "off"}


@contextmanager
def _stopped_on_failure(installation: Installation, cluster: Cluster) -> Iterator[None]:
    try:
        yield
    except BaseException:
        cluster.stop(mode="immediate")
        end_reading_ahead(installation, cluster.data_dir)
        raise


def end_reading_ahead(installation: Installation, data_dir: Path) -> None:
    """After a recovery in `data_dir`: end pgBackRest's processes that get WAL ahead for it, and remove their folder."""
    if not installation.settings.pgbackrest_archives:
        return
    try:
        installation.pgbackrest().remove_spool(data_dir)
    except (LifeboatError, OSError) as error:
        # What was restored is as it is, and an error that brought us here must not be hidden by this one.
        LOG.warning("WAL that was got ahead for %s is left behind: %s", data_dir, error)


def require_room(planned: PlannedRestore, folder: Path) -> None:
    """Raise NoRoomForRestore where the restored cluster cannot fit below `folder`."""
    require_free(certain_bytes(planned), folder, f"restoring {planned.manifest.label}")


def refuse_other_version(installation: Installation, planned: PlannedRestore) -> None:
    """Raise PermanentError when our programs are of another major version than the backup."""
    version, ours = str(planned.manifest.pg_version), installation.tools.major
    if version.partition(".")[0] != str(ours):
        raise PermanentError(
            f"{planned.manifest.label} is of PostgreSQL {version}, and the programs here are of version {ours}",
            hint="Install the backup's major version, and name its folder in `platform.bin_dir`.",
        )


@contextmanager
def recovered(installation: Installation, planned: PlannedRestore, site: Site, phase: Phase) -> Iterator[Recovered]:
    """Restore and replay; the server is stopped at the end."""
    restore_chain(installation, planned, site, phase)
    found = replay(installation, planned, site, phase)
    try:
        yield found
    finally:
        found.cluster.stop()
        end_reading_ahead(installation, site.data_dir)


@dataclass
class _Patience:
    """How long replay may stand still: as a whole it takes as long as there is WAL."""

    data_dir: Path
    seconds: float
    _seen: object = None
    _since: float = field(default_factory=time.monotonic)

    def look(self, seen: object) -> None:
        """Tell what was seen; raises RecoveryStuck when it has been the same for too long."""
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        elif time.monotonic() - self._since > self.seconds:
            raise RecoveryStuck(
                f"the server of {self.data_dir} has replayed nothing for {self.seconds:g} s",
                hint="Look at its log and at the archive; if it only needs longer, raise `drills.timeout_seconds`.",
            )


def _server_of(installation: Installation, planned: PlannedRestore, cluster: Cluster) -> RestoredServer:
    # The backup's superuser may have another name at the target: then one of these may be there.
    names = (planned.manifest.details.get("superuser"), "postgres", installation.source.user)
    return RestoredServer(cluster, [str(name) for name in names if name], planned.manifest.database or "postgres")


def _recover(server: RestoredServer, log: "_Log", patience_seconds: float) -> Reached:
    """Start the server and wait until it is paused or promoted; how far it has replayed then."""
    cluster = server.cluster
    patience = _Patience(cluster.data_dir, patience_seconds)
    try:
        # Until it is consistent nobody can ask: its log tells of each segment, and of replay every ten seconds.
        cluster.start(timeout_seconds=_NO_LIMIT_SECONDS, on_tick=lambda: patience.look(log.size_bytes()))
    except ServerStartFailed as error:
        raise _failure(log, error) from error
    return _reached(server, log, patience_seconds)


def _reached(server: RestoredServer, log: "_Log", patience_seconds: float) -> Reached:
    patience = _Patience(server.cluster.data_dir, patience_seconds)
    while server.cluster.is_running():
        position = None
        # Between two looks it may refuse connections for a moment, or end: the loop's condition tells these apart.
        with suppress(SourceUnavailable, psycopg.Error):
            found = _asked(server, log)
            if found.is_done:
                return found
            position = found.position
        patience.look(position)
        time.sleep(_POLL_SECONDS)
    raise _failure(log, None)


def _asked(server: RestoredServer, log: "_Log") -> Reached:
    try:
        return server.reached()
    except AuthenticationFailed as error:
        raise RecoveryFailed(
            f"nobody can ask the restored server how far it is: {error.message}",
            hint=f"None of the roles {', '.join(server.roles)} is there at the target. Its log is {log.path}.",
        ) from error


def _failure(log: "_Log", error: ServerStartFailed | None) -> RecoveryFailed:
    fatal = read_landing(log.text()).fatal
    if fatal is None and error is not None:
        return RecoveryFailed(error.message, hint=error.hint)
    why = fatal or "the server ended without saying why"
    if _FULL in why:
        hint = f"Free space below {log.path.parent}, or restore to another volume. The whole log is {log.path}."
    else:
        hint = f"The whole log is {log.path}." + (f" {_VERIFY}" if _OF_SETTINGS not in why else "")
    return RecoveryFailed(f"recovery stopped before the target: {why}", hint=hint)


@dataclass(frozen=True)
class _Log:
    """A server's log, from a size in bytes on: a restore over old data goes on with the log that is there."""

    path: Path
    since_bytes: int

    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def text(self) -> str:
        if not self.path.is_file():
            return ""
        with self.path.open("rb") as file:
            # A log that grew too long was set aside, and begins anew.
            file.seek(self.since_bytes if self.path.stat().st_size >= self.since_bytes else 0)
            return file.read().decode("utf-8", "replace")


def _restore_command(installation: Installation, planned: PlannedRestore, site: Site) -> str:
    material, wal = planned.material, installation.settings.wal
    command = "false"
    if material.archive is not None and material.listing is not None:
        if installation.settings.pgbackrest_archives:
            engine = pgbackrest_with_wal(installation, material.repository.destination.name)
            command = engine.restore_command(site.data_dir)
        else:
            config = WalConfig.of(
                wal,
                installation.destination(wal.destination).path,
                installation.settings.platform.cluster,
                system_identifier=material.listing.system_identifier,
                segment_size_bytes=material.listing.segment_size_bytes,
            )
            folder = site.work_dir / "wal"
            installed = install_archive_program(folder, config, user=installation.run_as, python=wal.python)
            check_archive(installed, for_push=False)
            command = installed.restore_command
    return command if site.tail is None else _with_tail(site.tail, command)


def _with_tail(tail: Path, command: str) -> str:
    """Take from the saved tail what it has; whatever goes wrong there must not look like the end of WAL."""
    place = "'" + str(tail).replace("'", "'\\''").replace("%", "%%") + "'"
    return f'if [ -f {place}/"%f" ]; then cp {place}/"%f" "%p" || exit 255; exit 0; fi; {command}'
