"""Starts an installation: a commented settings file, the state folder and the signing key."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeGuard, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lifeboat import commands
from lifeboat.errors import SettingsError
from lifeboat.postgres.connections import ConnectionInfo
from lifeboat.postgres.folders import check_reachable
from lifeboat.settings.loading import load_settings
from lifeboat.settings.root import Settings
from lifeboat.storage.durable import write_durably
from lifeboat.storage.signing import Signer

_HEAD = """\
# Settings of Lifeboat. Every setting can also come from the environment: LIFEBOAT_<SECTION>__<KEY>, which goes first.
# A line like `#key = value` shows a default or an example; a key that Lifeboat does not know is refused.
# `lifeboat doctor` checks what is set here.
"""
# What nobody can guess a default for is shown by example.
_EXAMPLES = {
    "platform.audit_query": ("'SELECT at, action, user_name FROM audit_log WHERE at BETWEEN :from AND :to'"),
    "assets.roots": '["/srv/studio/assets"]',
    "assets.query": "'''SELECT id, kind, path, size_bytes, sha256 FROM segments WHERE approved'''",
    "drills.validation": (
        "[{ name = 'there are characters', sql = 'SELECT count(*) FROM characters', expect = { minimum = 1 } }]"
    ),
    "configuration.sections": (
        "{ roles = { sql = 'SELECT name, permissions FROM roles', key_columns = ['name'], table = 'roles' }, "
        "hooks = { path = '/srv/studio/hooks', include = ['*.py'] } }"
    ),
}


@dataclass(frozen=True)
class Initialised:
    """What `initialise` made."""

    settings_file: Path
    state_dir: Path
    destination: Path
    signing_key: Path
    key_id: str


def default_state_dir() -> Path:
    """Where Lifeboat keeps its own files: the system's folder for root, below the home folder otherwise."""
    return Path("/var/lib/lifeboat") if os.geteuid() == 0 else Path.home() / ".local/share/lifeboat"


def initialise(
    settings_file: Path, *, dsn: str | None, state_dir: Path, destination: Path | None = None
) -> Initialised:
    """Write the settings file and make the signing key; without `dsn` the platform is the embedded PostgreSQL.

    An existing settings file is never replaced, an existing key is used. Raises SettingsError, FolderUnreachable,
    ConnectionStringInvalid.
    """
    _refuse_existing(settings_file)
    if dsn is not None:
        ConnectionInfo.parse(dsn)
    backups = destination or state_dir / "backups"
    _make_state_dir(state_dir)
    text = settings_text(dsn=dsn, state_dir=state_dir, destination=backups)
    try:
        settings_file.parent.mkdir(parents=True, exist_ok=True)
        # It may hold a password.
        write_durably(settings_file, text.encode(), mode=0o600, exclusive=True)
    except FileExistsError:
        _refuse_existing(settings_file)
    except OSError as error:
        raise SettingsError(f"cannot write {settings_file}: {error.strerror}") from error
    try:
        settings = load_settings(settings_file)
    except SettingsError:
        settings_file.unlink()
        raise
    signer = Signer.load_or_create(settings.signing_key_file)
    return Initialised(settings_file, state_dir, backups, settings.signing_key_file, signer.key_id)


def settings_text(*, dsn: str | None, state_dir: Path, destination: Path) -> str:
    """A lifeboat.toml that works, with every other setting, its meaning and its default as comments."""
    chosen: dict[str, object] = {
        "state_dir": state_dir,
        **({"platform.embedded": True} if dsn is None else {"platform.dsn": dsn}),
        "backup.destination": "primary",
    }
    chosen |= {"destinations.primary.type": "filesystem", "destinations.primary.path": destination}
    return "\n".join([_HEAD, *_table("", Settings, chosen)]) + "\n"


def _refuse_existing(settings_file: Path) -> None:
    if settings_file.exists():
        raise SettingsError(
            f"{settings_file} exists already, and is left as it is",
            hint="Edit it, or name another file with --config.",
        )


def _make_state_dir(state_dir: Path) -> None:
    try:
        if not state_dir.is_dir():
            state_dir.mkdir(parents=True)
            # The server's account has to pass through; what is private inside has rights of its own.
            state_dir.chmod(0o711)
    except OSError as error:
        raise SettingsError(
            f"cannot create the state folder {state_dir}: {error.strerror}",
            hint="Choose a folder that you may write to: `lifeboat init --state-dir PATH`.",
        ) from error
    check_reachable(state_dir, commands.effective_user(None))


def _table(path: str, model: type[BaseModel], chosen: Mapping[str, object]) -> Iterator[str]:
    yield from _keys(path, model, chosen)
    for name, field in model.model_fields.items():
        below = f"{path}.{name}" if path else name
        if below == "destinations":
            yield from (
                "",
                "# Where backups go: a table for each destination, told apart by its name.",
                "[destinations.primary]",
            )
            yield from _table("destinations.primary", _value_model(field), chosen)
        elif _is_model(field.annotation):
            yield from ("", *_about(field.annotation), f"[{below}]")
            yield from _table(below, field.annotation, chosen)


def _keys(path: str, model: type[BaseModel], chosen: Mapping[str, object]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        full = f"{path}.{name}" if path else name
        if _is_model(field.annotation) or full == "destinations":
            continue
        if field.description:
            yield f"# {field.description.rstrip('.')}."
        yield f"{name} = {_toml(chosen[full])}" if full in chosen else f"#{name} ={_default(full, field)}"


def _default(full: str, field: FieldInfo) -> str:
    if full in _EXAMPLES:
        return f" {_EXAMPLES[full]}"
    value = field.get_default(call_default_factory=True, validated_data={})
    return f" {_toml(value)}" if value is not None else "  # not set"


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _value_model(field: FieldInfo) -> type[BaseModel]:
    found = get_args(field.annotation)[-1]
    if not _is_model(found):
        raise TypeError(f"{field.annotation} is no table of models")
    return found


def _about(model: type[BaseModel]) -> Iterator[str]:
    first_line = (model.__doc__ or "").strip().splitlines()[0]
    # Some say only which section they are, as the next line does.
    if not first_line.startswith("Section ["):
        yield f"# {first_line}"


def _toml(value: Any) -> str:  # noqa: ANN401 - whatever a setting's default is
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Enum):
        return _toml(value.value)
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return "{}" if not value else f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    # JSON's string escapes are a part of TOML's.
    return json.dumps(str(value), ensure_ascii=False)
