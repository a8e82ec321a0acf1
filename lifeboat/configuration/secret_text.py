"""Finds secrets inside texts: connection strings, URLs, assignments, well-known forms of tokens, private keys."""

import re
from collections.abc import Callable

from lifeboat.configuration.index import REDACTED
from lifeboat.configuration.secret_names import SecretNames, is_reference

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|\s)+"
    r"(?:[A-Za-z0-9+/=]{16}|(?:Proc-Type|Version|Comment|Hash|DEK-Info):)"
    r"|AGE-SECRET-KEY-1[A-Z0-9]{20,}|PuTTY-User-Key-File-\d:"
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
# libpq: the part before the last @ that comes before the first slash; a password may hold colons.
_URL_PASSWORD = re.compile(
    r"(?P<head>\b[a-zA-Z][\w+.-]{0,40}://[^\s/?#:@'\"]*:)(?P<secret>(?!\d{1,5}[\"',;)\]}])[^\s/]+)(?=@)"
)
# Heads that name what follows, and how far the value goes.
# A quote that nobody closes runs to the end of the line.
_TO_SPACE = re.compile(r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|['\"].*|[^\s'\"]+)+")
_TO_LINE_END = re.compile(r".+")
_NAMED = (
    (re.compile(r"[?&;](?P<name>[\w.-]+)="), re.compile(r"[^&\s#'\"]+")),
    # One setting of a role or database (`app.jwt_secret=two words`): all the rest of the line is its value.
    (re.compile(r"^(?P<name>[A-Za-z_]\w*\.[\w.]+)=", re.MULTILINE), _TO_LINE_END),
    # To the next space outside quotes, as in libpq and in a shell; rather too much than half a password.
    (re.compile(r"(?<![\w.-])-{0,2}(?P<name>[A-Za-z_][\w.-]*)[ \t]*=[ \t]*"), _TO_SPACE),
    (re.compile(r"(?<!\S)--?(?P<name>[A-Za-z][\w-]*)[ \t]+(?!-)"), _TO_SPACE),
)
# A value that turned out to be no secret may hold one itself; a longer one is not read again, to stay linear.
_READ_AGAIN_MAX_CHARACTERS = 256
_BEARER = re.compile(r"(?P<head>\b[Bb]earer\s+)(?P<secret>(?=\S*\d)[\w.~+/=-]{16,})")
_WEBHOOK = re.compile(
    r"(?P<head>https://(?:hooks\.slack\.com/services|hooks\.slack\.com/workflows|discord(?:app)?\.com/api/webhooks"
    r"|[\w.-]+\.webhook\.office\.com/webhookb2)/)(?P<secret>[\w./@-]+)"
)
_KNOWN_TOKEN = re.compile(
    r"(?P<head>)(?P<secret>\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}|xox[abeprs]-[\w-]{10,}"
    r"|sk-[\w-]{20,}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}|r8_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})|AGE-SECRET-KEY-1[A-Z0-9]{20,})"
)
_VARIABLE = re.compile(r"[\"']?[$%{<*(]")

_SCRIPT_ASSIGNMENT = re.compile(
    r"(?P<name>[A-Za-z_][\w.-]*)[\"']?\s*(?::=|[:=])\s*(?P<secret>\"[^\"\n]{4,}\"|'[^'\n]{4,}')"
    r"|(?:^|\bexport\s+|\benv\s+)(?P<bare>[A-Za-z_]\w*)=(?P<word>[^\s'\"$`(){}<>;]{4,})(?=\s|$)",
    re.MULTILINE,
)


def holds_private_key(text: str) -> bool:
    """Whether the text is, or contains, the material of a private key."""
    return _PRIVATE_KEY.search(text) is not None


class SecretText:
    """Takes secrets out of single strings; `on_secret` learns each one that is taken out."""

    def __init__(self, names: SecretNames, on_secret: Callable[[str], None]) -> None:
        self._names, self._on_secret = names, on_secret

    def redact(self, text: str) -> str:
        """The text without the secrets in it; the same text where there is none."""
        if holds_private_key(text):
            text = _KEY_BLOCK.sub(self._whole, text)
        for pattern in (_URL_PASSWORD, _WEBHOOK) if "://" in text else ():
            text = pattern.sub(self._replace, text)
        for pattern in (_KNOWN_TOKEN, _BEARER):
            text = pattern.sub(self._replace, text)
        for head, value in _NAMED:
            text = self._redact_named(text, head, value)
        return text

    def _redact_named(self, text: str, head: re.Pattern[str], value: re.Pattern[str]) -> str:
        pieces, at = [], 0
        while (found := head.search(text, at)) is not None:
            pieces.append(text[at : found.end()])
            at = found.end()
            if not self._names.is_suspect(found["name"]) or (match := value.match(text, at)) is None:
                continue
            clean = self._named_value(found["name"], match[0])
            if clean is not None or len(match[0]) > _READ_AGAIN_MAX_CHARACTERS:
                pieces.append(match[0] if clean is None else clean)
                at = match.end()
        return "".join(pieces) + text[at:] if pieces else text

    def _whole(self, match: re.Match[str]) -> str:
        self._on_secret(match[0])
        return REDACTED

    def _replace(self, match: re.Match[str]) -> str:
        if REDACTED in match["secret"] or is_reference(match["secret"]):
            return match[0]
        self._on_secret(match["secret"])
        return match["head"] + REDACTED

    def _named_value(self, name: str, value: str) -> str | None:
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        quote, inner = (value[0], value[1:-1]) if quoted else ("", value)
        if REDACTED in inner:
            return value
        if not self._names.is_secret(name, inner, strict=False):
            return None
        self._on_secret(re.sub(r"\\(.)", r"\1", inner) if quoted else inner)
        return quote + REDACTED + quote


def suspected_secrets(text: str, names: SecretNames) -> list[int]:
    """The lines of a script, numbered from 1, that seem to give a literal password or token."""
    found: set[int] = set()
    for match in _SCRIPT_ASSIGNMENT.finditer(text):
        name, value = match["name"] or match["bare"], (match["secret"] or match["word"]).strip("'\"")
        if not _VARIABLE.match(value) and names.is_secret(name, value, strict=False):
            found.add(text.count("\n", 0, match.start()) + 1)
    for pattern in (_URL_PASSWORD, _WEBHOOK, _KNOWN_TOKEN):
        for match in pattern.finditer(text):
            if not _VARIABLE.match(match["secret"]):
                found.add(text.count("\n", 0, match.start()) + 1)
    return sorted(found)
