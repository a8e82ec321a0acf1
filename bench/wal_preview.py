"""How long the quick preview of a restore takes, over so much WAL that is indexed already."""

import statistics
import time
from datetime import datetime
from pathlib import Path

from bench.wal_loads import DATABASE, LoadedServer, load_copy, load_short
from lifeboat.catalog.migrate import migrate
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.platform import install_archiving
from lifeboat.operations.preview.quick import PreviewOrder, preview_restore
from lifeboat.operations.wal.index import index_wal
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.folders import give_to
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.coverage import wait_for_segment
from lifeboat.wal.names import parse_lsn

TARGET_SECONDS = 1.0
_CLUSTER = "bench"
_ARCHIVING_SECONDS = 600
_MOMENTS = 4
_MEBIBYTE = 1024 * 1024


def time_previews(tools: PgTools, root: Path, megabytes: int, rounds: int) -> bool:
    """Print how long previews of moments spread over so much WAL take; whether the target is met.

    The whole operation is timed, as a flow or the command line calls it: planning with what is read of the archive's
    end, bringing the index up to date (it is), and the minute of the target read again. Programs were imported before.
    """
    server, installation = _start(tools, root)
    moments, size_bytes = _fill(server, installation, megabytes * _MEBIBYTE)
    began = time.perf_counter()
    read = index_wal(installation).read_bytes // _MEBIBYTE
    print(f"preview: {read} MB indexed in {time.perf_counter() - began:.1f} s", flush=True)
    seconds: list[float] = []
    for number in range(rounds * len(moments) + 1):
        target = RecoveryTarget(TargetKind.TIME, at=moments[number % len(moments)])
        began = time.perf_counter()
        preview = preview_restore(installation, PreviewOrder(target))
        seconds.append(time.perf_counter() - began)
        if not preview.exact or not preview.tables:
            raise SystemExit(f"the preview is not what it should be: {preview.doubts}, {preview.tables}")
    server.cluster.stop()
    median, worst = statistics.median(seconds[1:]), max(seconds[1:])
    met = median < TARGET_SECONDS
    print(
        f"preview over {size_bytes // _MEBIBYTE} MB of WAL: first {seconds[0]:.2f} s, then median {median:.2f} s, "
        f"worst {worst:.2f} s of {len(seconds) - 1} (allowed {TARGET_SECONDS} s): {'ok' if met else 'TOO SLOW'}"
    )
    return met


def _start(tools: PgTools, root: Path) -> tuple[LoadedServer, Installation]:
    cluster = Cluster(root / "preview" / "data", tools, root / "preview" / "run", 5440)
    (root / "preview").mkdir()
    give_to(root / "preview", tools.user)
    cluster.init(extra_args=["--no-sync"])
    store = root / "preview" / "store"
    store.mkdir()
    give_to(store, tools.user)
    sections: dict[str, object] = {
        "state_dir": root / "preview" / "state",
        "platform": {"cluster": _CLUSTER, "dsn": cluster.dsn(DATABASE), "bin_dir": tools.bin_dir},
        "destinations": {"primary": {"path": store, "minimum_free_bytes": 0}},
        "wal": {
            "minimum_free_bytes": 0,
            "archive_timeout_seconds": 0,
            "segment_timeout_seconds": _ARCHIVING_SECONDS,
        },
    }
    installation = Installation(Settings.model_validate(sections))
    control = cluster.controldata()
    installed = install_archiving(
        installation,
        system_identifier=control["Database system identifier"],
        segment_size_bytes=int(control["Bytes per WAL segment"]),
    )
    settings: dict[str, SettingValue] = {"fsync": False, "max_wal_size": "20GB", "autovacuum": False}
    archiving: dict[str, SettingValue] = {"archive_mode": True, "archive_command": installed.archive_command}
    cluster.write_settings({"listen_addresses": "", "wal_level": "replica", **settings, **archiving})
    cluster.start()
    server = LoadedServer(cluster)
    server.prepare()
    migrate(installation.catalog_connection)
    return server, installation


def _fill(server: LoadedServer, installation: Installation, size_bytes: int) -> tuple[list[datetime], int]:
    """A backup, then WAL: half COPY and half short transactions, of which some lie before and behind each moment."""
    take_backup(installation, BackupOrder(BackupType.FULL, engine="basebackup"))
    start, part, moments = server.position(), size_bytes // _MOMENTS // 2, list[datetime]()
    for _ in range(_MOMENTS):
        load_copy(server, part, lambda: None)
        load_short(server, part, lambda: None)
        moments.append(server.now())
        server.run("CALL play(5000)")
    server.run("SELECT pg_logical_emit_message(true, 'bench', 'the end')")
    end = str(server.run("SELECT pg_switch_wal()::text"))
    store = installation.settings.destinations["primary"].path
    wait_for_segment(store, _CLUSTER, timeline=1, lsn=end, timeout_seconds=_ARCHIVING_SECONDS)
    return moments, parse_lsn(end) - start
