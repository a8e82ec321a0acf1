"""Gives a restored cluster its own configuration back, without what would reach for its original's surroundings."""

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lifeboat.postgres.cluster import write_server_file
from lifeboat.postgres.conf import SettingValue, quote_setting, read_settings
from lifeboat.postgres.folders import create_file
from lifeboat.postgres.isolation import KEPT_SUFFIX
from lifeboat.storage.durable import fsync_directory
from lifeboat.wal.names import history_name

_FILES = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")
# Names of places: in another folder, or beside the original, they would lead back to it.
_PLACES = ("data_directory", "hba_file", "ident_file", "external_pid_file")
_MINIMAL = """\
# Written by Lifeboat: the backup has no postgresql.conf, so the original's lies outside its data directory
# (Debian: /etc/postgresql). `lifeboat config list` shows the configuration archives that have it.
"""
_MINIMAL_HBA = "# Written by Lifeboat: the backup has no pg_hba.conf.\nlocal all all peer\n"
_INCLUDE = re.compile(r"\s*(?P<kind>include(?:_if_exists|_dir)?)\s*=?\s*'(?P<place>[^']+)'", re.IGNORECASE)
_HEADING = "# Written by Lifeboat: this cluster was restored beside its original."


@dataclass(frozen=True)
class OwnSettings:
    """What was done to the configuration, for people: notes, and the statements that undo our precautions."""

    notes: tuple[str, ...]
    undo: tuple[str, ...]


def give_settings_back(
    data_dir: Path, user: str | None, *, beside: bool, final_dir: Path, dropped: Collection[str] = ()
) -> OwnSettings:
    """Put the cluster's own files back; with `beside` its archiving, replication, subscriptions and jobs stay off.

    `final_dir` is where the data directory will be, `dropped` the libraries that it must not preload beside its
    original. Raises OSError.
    """
    notes: list[str] = []
    for name in _FILES:
        kept = data_dir / f"{name}{KEPT_SUFFIX}"
        if kept.is_symlink() or kept.exists():
            kept.replace(data_dir / name)
        elif name == "postgresql.conf":
            write_server_file(data_dir / name, _MINIMAL, user)
            notes.append("the backup has no postgresql.conf: bring back the server's own from /etc, or write one")
        elif name == "pg_hba.conf":
            write_server_file(data_dir / name, _MINIMAL_HBA, user)
    own = {**read_settings(data_dir / "postgresql.conf"), **read_settings(data_dir / "postgresql.auto.conf")}
    precautions: dict[str, SettingValue] = {}
    if beside:
        precautions = {"archive_mode": False, "max_logical_replication_workers": 0}
        # It may be set in a file that is included; commits would wait for a standby that is not there.
        precautions["synchronous_standby_names"] = ""
        precautions |= {"primary_conninfo": ""} if own.get("primary_conninfo") else {}
        precautions |= _harmless_libraries(data_dir, own, dropped, notes)
        _override_places(data_dir, own, user, final_dir, notes)
    elif own.get("restore_command"):
        notes.append("restore_command is set as before: it matters only to a standby")
    _append(data_dir / "postgresql.auto.conf", precautions, user)
    fsync_directory(data_dir)
    if _includes(data_dir):
        notes.append("postgresql.conf includes other files: see that each is meant for this cluster")
    return OwnSettings(tuple(notes), tuple(f"ALTER SYSTEM RESET {name};" for name in precautions))


def offer_history(data_dir: Path, timeline: int | None, user: str | None) -> None:
    """Have the new timeline's history archived as soon as archiving is on.

    A server that promotes while archiving is off never archives it, and no later restore could find the timeline.
    """
    if timeline is None:
        return
    name = history_name(timeline)
    status = data_dir / "pg_wal" / "archive_status"
    if (data_dir / "pg_wal" / name).is_file() and not (status / f"{name}.ready").exists():
        create_file(status / f"{name}.ready", user)
        fsync_directory(status)


def _harmless_libraries(
    data_dir: Path, own: dict[str, str], dropped: Collection[str], notes: list[str]
) -> dict[str, SettingValue]:
    """What may be preloaded beside the original: pg_cron and its like would run the original's jobs once more."""
    if not dropped and not _includes(data_dir):
        return {}
    kept = [word for word in _libraries(own) if word.strip('"') not in dropped]
    included = [word for found in _included(data_dir / "postgresql.conf") for word in _libraries(found)]
    if left_out := dict.fromkeys([*dropped, *(word.strip('"') for word in included if word not in kept)]):
        notes.append(
            f"not preloaded beside the original: {', '.join(left_out)}. So no job of the original runs a second time "
            "here; what needs these libraries works again after `ALTER SYSTEM RESET shared_preload_libraries;` and a "
            "restart"
        )
    return {"shared_preload_libraries": ",".join(kept)}


def _libraries(settings: dict[str, str]) -> list[str]:
    words = settings.get("shared_preload_libraries", "").split(",")
    return [word.strip() for word in words if word.strip()]


def _included(path: Path, depth: int = 10) -> Iterator[dict[str, str]]:
    """The settings of each file that a configuration file includes, and of what these include.

    What cannot be read is left out: they only word a note, and the restore is proven.
    """
    for file in _included_files(path) if depth else ():
        settings: dict[str, str] = {}
        with suppress(OSError):
            settings = read_settings(file)
        yield settings
        yield from _included(file, depth - 1)


def _included_files(path: Path) -> Iterator[Path]:
    lines: list[str] = []
    with suppress(OSError):
        lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    for found in filter(None, map(_INCLUDE.match, lines)):
        place = path.parent / found["place"]
        files = [place]
        if found["kind"].lower() == "include_dir":
            files = []
            with suppress(OSError):
                files = sorted(place.glob("*.conf"))
        yield from files


def _override_places(data_dir: Path, own: dict[str, str], user: str | None, final_dir: Path, notes: list[str]) -> None:
    here = {"data_directory": str(final_dir), "hba_file": str(final_dir / "pg_hba.conf")}
    here |= {"ident_file": str(final_dir / "pg_ident.conf"), "external_pid_file": ""}
    wrong = [name for name in _PLACES if own.get(name) and own[name] != here[name]]
    if not wrong:
        return
    # data_directory cannot stand in postgresql.auto.conf; the last line of a file wins.
    main = data_dir / "postgresql.conf"
    _append(main, {name: here[name] for name in wrong}, user)
    notes += [f"{name} was {own[name]}, and is {here[name] or 'empty'} now" for name in wrong]


def _append(path: Path, settings: dict[str, SettingValue], user: str | None) -> None:
    if not settings:
        return
    before = path.read_text("utf-8", "surrogateescape") if path.is_file() else ""
    lines = [_HEADING, *(f"{name} = {quote_setting(value)}" for name, value in settings.items())]
    text = before + ("\n" if before and not before.endswith("\n") else "") + "\n".join(lines) + "\n"
    if path.is_symlink():
        path.unlink()
    write_server_file(path, text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), user)


def _includes(data_dir: Path) -> bool:
    return any(name.lower().startswith("include") for name in _words(data_dir / "postgresql.conf"))


def _words(path: Path) -> list[str]:
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    return [line.split()[0] for line in text.splitlines() if line.split()]
