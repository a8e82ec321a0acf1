"""Takes secrets out of settings files: postgresql.conf, pg_hba.conf, pgbackrest.conf, lifeboat.toml."""

import json
import re
import tomllib
from collections.abc import Collection, Iterator

from lifeboat.configuration.index import REDACTED
from lifeboat.configuration.jsontext import Json, map_strings, parse, render_plain
from lifeboat.configuration.redaction import Redactor
from lifeboat.configuration.secret_text import holds_private_key

# `name = value` of an ini file, or of postgresql.conf, which may leave the sign out; also commented out.
_SETTING = re.compile(
    r"^(?P<head>[ \t]*(?:[#;][#; \t]*)?(?P<name>[A-Za-z_][\w.-]*)(?P<sign>[ \t]*=[ \t]*|[ \t]+))"
    r"(?P<value>.*?)(?P<end>\s*)$"
)
_CONF_STRING = re.compile(r"'(?P<inner>(?:[^'\\]|''|\\.)*)'")
_TOML_PAIR = re.compile(
    r"(?P<head>(?P<name>[A-Za-z0-9_.-]+|\"[^\"\n]*\"|'[^'\n]*')[ \t]*=[ \t]*)"
    r"(?P<value>\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[\d+-][\w.:+-]*)"
)
_TOML_STRING = re.compile(r"\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")


class NotRedactable(Exception):
    """The file cannot be taken without the risk of a secret in it; the message says why."""


def redact_settings_file(redactor: Redactor, section: str, path: str, content: bytes) -> bytes:
    """The file without secrets; each line that lost one is listed. Raises NotRedactable."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise NotRedactable("it is not UTF-8 text") from None
    if holds_private_key(text):
        raise NotRedactable("it holds a private key")
    clean = _redact_toml(redactor, text) if path.endswith(".toml") else _redact_lines(redactor, text)
    clean = redactor.sweep(clean)
    before, after = text.split("\n"), clean.split("\n")
    for number, line in enumerate(after, 1):
        if REDACTED in line and (len(before) != len(after) or before[number - 1] != line):
            redactor.note(section, path, f"line {number}")
    return clean.encode()


def _redact_lines(redactor: Redactor, text: str) -> str:
    return "\n".join(_redact_line(redactor, line) for line in text.split("\n"))


def _redact_line(redactor: Redactor, line: str) -> str:
    match = _SETTING.match(line)
    if match is None:
        return redactor.text(line)
    quoted = _CONF_STRING.match(match["value"])
    if quoted is None and "=" not in match["sign"] and match["head"].lstrip()[0] in "#;":
        return redactor.text(line)  # a comment in prose
    inner = _unescape(quoted["inner"]) if quoted else match["value"]
    rest = match["value"][quoted.end() :] if quoted else ""
    quote = "'" if quoted else ""
    if redactor.names.is_secret(match["name"], inner, strict=True):
        redactor.learn(inner)
        # What follows a quoted value is a comment, unless the quoting is of another kind than thought.
        return match["head"] + quote + REDACTED + quote + match["end"]
    clean = redactor.text(inner)
    if clean == inner:
        return match["head"] + match["value"][: quoted.end() if quoted else None] + redactor.text(rest) + match["end"]
    escaped = clean.replace("\\", "\\\\").replace("'", "''") if quoted else clean
    return match["head"] + quote + escaped + quote + redactor.text(rest) + match["end"]


def _unescape(inner: str) -> str:
    return re.sub(r"''|\\(.)", lambda found: found[1] or "'", inner)


def _redact_toml(redactor: Redactor, text: str) -> str:
    """Line by line as people wrote it, then proven: it must say what the redacted settings say."""
    settings = _load(text)
    wanted = _wanted(redactor, settings)
    # A second try also takes strings that are secret by the place of their table or list, wherever they stand.
    for secrets in (frozenset(), frozenset(_replaced(settings, wanted))):
        clean = _TOML_PAIR.sub(lambda match: _redact_pair(redactor, match, secrets), text)  # noqa: B023
        clean = _TOML_STRING.sub(lambda match: _redact_string(redactor, match[0], secrets), clean)  # noqa: B023
        clean = "\n".join(_redact_comment(redactor, line) for line in clean.split("\n"))
        clean = redactor.sweep(clean)
        if render_plain(_load(clean)) == render_plain(map_strings(wanted, redactor.sweep)):
            return clean
    raise NotRedactable("its secrets stand where they cannot be taken out reliably")


def _replaced(before: Json, after: Json) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before:
            yield from _replaced(before[name], after[name])
    elif isinstance(before, list) and isinstance(after, list):
        for old, new in zip(before, after, strict=True):
            yield from _replaced(old, new)
    elif isinstance(before, str) and after == REDACTED:
        yield before


def _load(text: str) -> Json:
    try:
        return parse(render_plain(tomllib.loads(text)))
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise NotRedactable(f"it is not valid TOML: {error}") from None


def _wanted(redactor: Redactor, settings: Json) -> Json:
    return map_strings(redactor.tree(settings), lambda text: _redact_channel(redactor, text))


def _redact_pair(redactor: Redactor, match: re.Match[str], secrets: Collection[str]) -> str:
    value = _toml_value(match["value"])
    name = match["name"].strip("\"'")
    is_number = not isinstance(value, str) and (redactor.names.is_strong(name) or str(value) in secrets)
    if is_number or (isinstance(value, str) and redactor.names.is_secret(name, value, strict=True)):
        redactor.learn(str(value))
        return f'{match["head"]}"{REDACTED}"'
    return match[0]


def _redact_string(redactor: Redactor, token: str, secrets: Collection[str]) -> str:
    value = _toml_value(token)
    if not isinstance(value, str):
        return token
    clean = REDACTED if value in secrets else _redact_channel(redactor, redactor.text(value))
    return token if clean == value else json.dumps(clean, ensure_ascii=False)


def _redact_comment(redactor: Redactor, line: str) -> str:
    head, sign, comment = line.partition("#")
    return head + sign + redactor.text(comment) if sign and head.count('"') % 2 == head.count("'") % 2 == 0 else line


def _toml_value(token: str) -> object:
    try:
        return tomllib.loads(f"value = {token}")["value"]
    except tomllib.TOMLDecodeError:
        return None


_NOT_A_CHANNEL = re.compile(
    r"(?:https?|postgres(?:ql)?|file|s3|gs|az|azure|ftps?|sftp|ssh|rsync|nfs|smb|redis|sqlite|unix|tcp|[\w+]*\+[\w+]*)://",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"(?P<head>[a-z][a-z0-9]*s?://).+", re.IGNORECASE | re.DOTALL)


def _redact_channel(redactor: Redactor, text: str) -> str:
    """`slack://tokens…`, `mailto://user:password@…`: notification URLs (Apprise's) are secret from end to end."""
    match = _CHANNEL.fullmatch(text)
    if match is None or _NOT_A_CHANNEL.match(text) or text == match["head"] + REDACTED:
        return text
    redactor.learn(text[len(match["head"]) :])
    return match["head"] + REDACTED
