"""Reads lifeboat.toml and the environment; what is not understood is refused with the nearest valid name."""

import difflib
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource

from lifeboat.errors import SettingsError
from lifeboat.settings.root import Settings

CONFIG_VARIABLE = "LIFEBOAT_CONFIG"
_SYSTEM_FILE = Path("/etc/lifeboat/lifeboat.toml")
_NOT_SETTINGS = {CONFIG_VARIABLE, "LIFEBOAT_COMMAND"}


def find_settings_file(given: Path | None = None) -> Path:
    """The settings file: the one given, $LIFEBOAT_CONFIG, ./lifeboat.toml, /etc/lifeboat/lifeboat.toml."""
    named = given or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    candidates = [named] if named else [Path.cwd() / "lifeboat.toml", _SYSTEM_FILE]
    for path in candidates:
        if path.is_file():
            return path.absolute()
    raise SettingsError(
        f"there is no settings file at {' or '.join(map(str, candidates))}",
        hint=f"Name it with --config or ${CONFIG_VARIABLE}; `lifeboat init` writes one to start from.",
    )


def is_found_without_name(path: Path) -> bool:
    """Whether that file is the one that is found where none is named, in whatever folder and shell."""
    if path != _SYSTEM_FILE or os.environ.get(CONFIG_VARIABLE):
        return False
    return not (Path.cwd() / "lifeboat.toml").is_file()


def load_settings(given: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check all settings; raises SettingsError that names every fault, never a value of a secret."""
    path = find_settings_file(given)
    _check_environment(os.environ if environ is None else environ)
    try:
        return _bound_to(path)()
    except ValidationError as error:
        faults = [_explain(fault["loc"], fault["type"], fault["msg"]) for fault in error.errors(include_input=False)]
        raise SettingsError(
            f"settings are wrong ({path} and the environment): " + "; ".join(faults),
            hint="Correct them; `lifeboat doctor` checks them again.",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error


def _bound_to(path: Path) -> "type[Settings]":
    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """The environment goes before the file; there is no other source."""
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)

    return FromFile


def _check_environment(environ: Mapping[str, str]) -> None:
    sections = list(Settings.model_fields)
    for name in environ:
        if not name.startswith("LIFEBOAT_") or name in _NOT_SETTINGS:
            continue
        section = name.removeprefix("LIFEBOAT_").lower().partition("__")[0]
        if section not in sections:
            raise SettingsError(
                f"the environment variable {name} sets nothing{_nearest(section, sections)}",
                hint="The form is LIFEBOAT_<SECTION>__<KEY>, as in LIFEBOAT_PLATFORM__DSN.",
            )


def _explain(location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        return f"unknown setting `{name}`{_nearest(str(location[-1]), _siblings(location[:-1]))}"
    if kind == "missing":
        return f"`{name}` is not set"
    # pydantic prefixes messages of our own validators with their class.
    return f"`{name}`: {message.removeprefix('Value error, ')}" if name else message.removeprefix("Value error, ")


def _nearest(name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else f"; valid here: {', '.join(sorted(valid))}" if valid else ""


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    kinds: list[Any] = [Settings]
    for part in location:
        kinds = [inner for kind in kinds for inner in _inside(kind, str(part))]
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return sorted({field for model in models for field in model.model_fields})


def _inside(kind: Any, part: str) -> list[Any]:  # noqa: ANN401 - an annotation is any object
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _unfold(kind.model_fields[part].annotation) if part in kind.model_fields else [kind]
    arguments = typing.get_args(kind)
    return _unfold(arguments[-1]) if arguments else []


def _unfold(annotation: Any) -> list[Any]:  # noqa: ANN401 - an annotation is any object
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _unfold(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return [inner for argument in typing.get_args(annotation) for inner in _unfold(argument)]
    return [annotation]
