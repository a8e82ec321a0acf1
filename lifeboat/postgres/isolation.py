"""Cut a restored cluster off from everything its original was connected to (DESIGN, section 6).

All configuration in the data directory is replaced by ours: what the restored files, or ALTER SYSTEM, had set
would push WAL into production's archive, follow its primary, take over its replication slots or run its jobs.
"""

import re
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lifeboat.errors import PermanentError
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster, write_server_file
from lifeboat.postgres.conf import SettingValue, read_settings, render_settings
from lifeboat.postgres.folders import give_tree_to, make_private_dir

# Libraries that reading the data may need or that stay within the server. Those that start jobs or connect to
# other servers (pg_cron, citus, timescaledb's scheduler, pg_net, pglogical) are not among them.
SAFE_LIBRARIES = frozenset({"auto_explain", "pg_stat_statements", "pgaudit", "plpgsql", "vchord", "vector"})
KEPT_SUFFIX = ".restored"

_REPLACED = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")
_SIGNALS = ("recovery.signal", "standby.signal")
_HBA = "# Written by Lifeboat: only the owner of the private socket folder gets here.\nlocal all all trust\n"
_NOTHING = "# Written by Lifeboat: empty on purpose.\n"
_EVENT_TRIGGERS_SINCE = 17

# pg_controldata's names of the settings that a server in recovery must have at least as high as its source.
_MINIMUMS = {
    "max_connections": ("max_connections setting", 100),
    "max_worker_processes": ("max_worker_processes setting", 8),
    "max_wal_senders": ("max_wal_senders setting", 10),
    "max_prepared_transactions": ("max_prepared_xacts setting", 0),
    "max_locks_per_transaction": ("max_locks_per_xact setting", 64),
}
_SEALED: dict[str, SettingValue] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "ssl": False,
    "archive_mode": False,
    "archive_command": "",
    "archive_library": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "synchronous_standby_names": "",
    "max_logical_replication_workers": 0,
    "logging_collector": False,
    "log_destination": "stderr",
}
_DEFAULTS: dict[str, SettingValue] = {
    "cluster_name": "lifeboat scratch",
    "hot_standby": True,
    "huge_pages": "try",
    "autovacuum": False,
    "restart_after_crash": False,
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}
_RECOVERY_NAME = re.compile(r"restore_command|recovery_target(_\w+)?|recovery_end_command|recovery_init_sync_method")


class IsolationRefused(PermanentError):
    """A restored cluster cannot be cut off from its original safely."""


@dataclass(frozen=True)
class Isolation:
    """An isolated cluster, ready to start; `dropped_libraries` are what the original preloads and it not."""

    cluster: Cluster
    settings: Mapping[str, SettingValue]
    dropped_libraries: tuple[str, ...]
    kept_files: tuple[Path, ...]


def isolate(  # noqa: PLR0913 - what a restore decides, each by name
    data_dir: Path,
    *,
    tools: PgTools,
    socket_dir: Path,
    port: int = 5432,
    source_settings: Mapping[str, str] | None = None,
    recovery: Mapping[str, SettingValue] | None = None,
    extra_settings: Mapping[str, SettingValue] | None = None,
    safe_libraries: Collection[str] = SAFE_LIBRARIES,
    allowed_roots: Sequence[Path] = (),
) -> Isolation:
    """Replace the whole configuration of a restored data directory, so that starting it touches nothing else.

    `source_settings` are the original's (pg_settings), `recovery` the restore_command and recovery_target
    settings: with them the server does archive recovery, without them it opens what the backup holds.
    Tablespaces and pg_wal must lie beside the data directory or below `allowed_roots`.

    Raises IsolationRefused.
    """
    cluster = Cluster(data_dir, tools, socket_dir, port)
    if cluster.is_running():
        raise IsolationRefused(f"a server is running on {data_dir}", hint="Stop it before its data is isolated.")
    _refuse_outside_links(data_dir, [data_dir.parent, *allowed_roots])
    make_private_dir(socket_dir, tools.user)
    give_tree_to(data_dir, tools.user)
    if stat.S_IMODE(data_dir.stat().st_mode) not in {0o700, 0o750}:
        data_dir.chmod(0o700)
    source = {**_restored_settings(data_dir), **(source_settings or {})}
    libraries, dropped = _libraries(source, tools, safe_libraries)
    settings = _settings(cluster, source, libraries, recovery or {}, extra_settings or {})
    kept = _write(data_dir, tools, settings, in_recovery=recovery is not None)
    return Isolation(cluster, settings, dropped, kept)


def _restored_settings(data_dir: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("postgresql.conf", "postgresql.auto.conf"):
        # A second isolation of the same folder finds the original's files under their kept names.
        kept = data_dir / f"{name}{KEPT_SUFFIX}"
        found |= read_settings(kept if kept.is_file() else data_dir / name)
    return found


def _libraries(
    source: Mapping[str, str], tools: PgTools, safe_libraries: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    wanted = [word.strip().strip('"') for word in source.get("shared_preload_libraries", "").split(",")]
    names = {word: word.rpartition("/")[2].removesuffix(".so") for word in wanted if word}
    folder = _library_dir(tools) if names else Path()
    kept = tuple(name for name in names.values() if name in safe_libraries and (folder / f"{name}.so").is_file())
    return kept, tuple(word for word, name in names.items() if name not in kept)


def _library_dir(tools: PgTools) -> Path:
    if tools.has("pg_config"):
        return Path(tools.run("pg_config", ["--pkglibdir"], timeout_seconds=60).stdout.strip())
    lib = tools.bin_dir.parent / "lib"
    return lib / "postgresql" if (lib / "postgresql").is_dir() else lib


def _settings(
    cluster: Cluster,
    source: Mapping[str, str],
    libraries: Sequence[str],
    recovery: Mapping[str, SettingValue],
    extra: Mapping[str, SettingValue],
) -> dict[str, SettingValue]:
    for name in (*recovery, *extra):
        if name in _SEALED or (name in recovery and not _RECOVERY_NAME.fullmatch(name)):
            raise IsolationRefused(f"the setting {name} is not open to change in an isolated cluster")
    control = cluster.controldata()
    settings: dict[str, SettingValue] = dict(_DEFAULTS)
    for name, (field, default) in _MINIMUMS.items():
        settings[name] = max(_number(control.get(field)), _number(source.get(name)), default)
    slots = [path for path in (cluster.data_dir / "pg_replslot").glob("*") if path.is_dir()]
    settings["max_replication_slots"] = max(10, len(slots), _number(source.get("max_replication_slots")))
    # A restored logical slot wants its wal_level; replay of commit timestamps wants them on.
    settings["wal_level"] = "logical" if control.get("wal_level setting") == "logical" else "replica"
    settings["track_commit_timestamp"] = control.get("track_commit_timestamp setting", "off")
    settings["shared_preload_libraries"] = ",".join(libraries)
    if cluster.tools.major >= _EVENT_TRIGGERS_SINCE:
        settings["event_triggers"] = False
    return {**settings, **extra, **recovery, **_SEALED}


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def _write(
    data_dir: Path, tools: PgTools, settings: Mapping[str, SettingValue], *, in_recovery: bool
) -> tuple[Path, ...]:
    kept: list[Path] = []
    for name in _REPLACED:
        path, copy = data_dir / name, data_dir / f"{name}{KEPT_SUFFIX}"
        # Renamed, not copied: it may be a link to the original's own file in /etc.
        if (path.is_file() or path.is_symlink()) and not copy.is_symlink() and not copy.exists():
            path.rename(copy)
            kept.append(copy)
        path.unlink(missing_ok=True)
    for name in _SIGNALS:
        (data_dir / name).unlink(missing_ok=True)
    text = render_settings(settings, heading="Written by Lifeboat: this cluster is isolated from its original.")
    write_server_file(data_dir / "postgresql.conf", text, tools.user)
    write_server_file(data_dir / "postgresql.auto.conf", _NOTHING, tools.user)
    write_server_file(data_dir / "pg_hba.conf", _HBA, tools.user)
    write_server_file(data_dir / "pg_ident.conf", _NOTHING, tools.user)
    if in_recovery:
        write_server_file(data_dir / "recovery.signal", "", tools.user)
    return tuple(kept)


def _refuse_outside_links(data_dir: Path, roots: Sequence[Path]) -> None:
    links = [(path, path.resolve()) for path in (data_dir / "pg_wal", *(data_dir / "pg_tblspc").glob("*"))]
    links += [(data_dir / "tablespace_map", target.resolve()) for target in _mapped_tablespaces(data_dir)]
    allowed = [root.resolve() for root in roots]
    for link, target in links:
        if not any(target.is_relative_to(root) for root in allowed):
            raise IsolationRefused(
                f"{link} leads to {target}, outside the restored folder: it may be the original's own data",
                hint="Restore with that tablespace mapped to a folder beside the restored data directory.",
            )


def _mapped_tablespaces(data_dir: Path) -> list[Path]:
    path = data_dir / "tablespace_map"
    if not path.is_file():
        return []
    # Lines are "oid path", a backslash escapes a line break or itself (xlogrecovery.c, read_tablespace_map).
    lines = re.findall(r"^\d+ ((?:\\[\s\S]|[^\\\n])+)$", path.read_text("utf-8"), re.MULTILINE)
    return [Path(re.sub(r"\\([\s\S])", r"\1", line)) for line in lines]
