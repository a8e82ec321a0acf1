"""The syntax of postgresql.conf (PostgreSQL manual, 20.1.2): written and read without a server."""

import re
from collections.abc import Mapping
from pathlib import Path

SettingValue = str | int | float | bool

_LINE = re.compile(
    r"""^\s*(?P<name>[A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)*)   # a name, custom ones with dots
        (?:\s*=\s*|\s+)                                       # the equals sign is optional
        (?:'(?P<quoted>(?:[^'\\]|''|\\.)*)'|(?P<bare>[^\s'\#]+))
        \s*(?:\#.*)?$""",
    re.VERBOSE,
)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def render_settings(settings: Mapping[str, SettingValue], *, heading: str) -> str:
    """The text of a configuration file with these settings, in order."""
    lines = [f"# {heading}"]
    lines += [f"{name} = {quote_setting(value)}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def quote_setting(value: SettingValue) -> str:
    """One value in the quoting of postgresql.conf."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return str(value)
    if "\n" in value or "\0" in value:
        raise ValueError("a server setting cannot hold a line break or a zero byte")
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def read_settings(path: Path) -> dict[str, str]:
    """The settings of one file, the last one wins, names in lowercase; includes are not followed."""
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        match = _LINE.match(line)
        if match is None or match["name"].lower().startswith("include"):
            continue
        quoted = match["quoted"]
        found[match["name"].lower()] = match["bare"] if quoted is None else _unquote(quoted)
    return found


def _unquote(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        token = match[0]
        if token == "''":  # noqa: S105 - a doubled quote, not a password
            return "'"
        if token[1] in "01234567":
            return chr(int(token[1:], 8))
        return _ESCAPES.get(token[1], token[1])

    return re.sub(r"''|\\[0-7]{1,3}|\\.", replace, text)
