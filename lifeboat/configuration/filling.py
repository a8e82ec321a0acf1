"""Puts the live values back where an archive says `***REDACTED***`: no placeholder is written over a real value."""

from collections.abc import Callable
from dataclasses import dataclass, field

from lifeboat.configuration.index import REDACTED
from lifeboat.configuration.jsontext import Json, Number, map_strings, parse, render

_IDENTITIES = ("id", "name", "key", "slug")


@dataclass
class Filling:
    """Fills values: `unknown` lists the paths that stay placeholders, `kept` what stays as it is live.

    `redact` takes secrets out of a text, to see whether a live one differs in more than its secret.
    """

    redact: Callable[[str], str]
    unknown: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def fill(self, column: str, archived: str, live: str | None) -> str:
        """The archived JSON text with the live values where it was redacted; `live` None is NULL."""
        now = parse(live) if live is not None else None
        filled = self._fill(column, parse(archived), now)
        return live if live is not None and render(filled) == render(now) else render(filled)

    def _fill(self, path: str, archived: Json, live: Json) -> Json:
        if isinstance(archived, dict):
            now = live if isinstance(live, dict) else {}
            return {name: self._fill(f"{path}.{name}", value, now.get(name)) for name, value in archived.items()}
        if isinstance(archived, list):
            return self._fill_list(path, archived, live)
        if not isinstance(archived, str) or isinstance(archived, Number) or REDACTED not in archived:
            return archived
        if live is None or live == "":
            self.unknown.append(path)
            return archived
        if archived != REDACTED and not (isinstance(live, str) and self.redact(live) == archived):
            self.kept.append(path)
        return live

    def _fill_list(self, path: str, archived: list[Json], live: Json) -> Json:
        if not isinstance(live, list) or not is_redacted(archived):
            return [self._fill(f"{path}[{at}]", value, None) for at, value in enumerate(archived)]
        found: list[Json] = []
        for at, value in enumerate(archived):
            partner = _partner(value, live, at) if is_redacted(value) else None
            if partner is None and is_redacted(value):
                # Nobody knows which live element it was: another one's secret must not become its own.
                self.kept.append(path)
                return live
            found.append(self._fill(f"{path}[{at}]", value, partner))
        return found


def is_redacted(value: Json) -> bool:
    """Whether a placeholder stands anywhere in the value."""
    seen: list[str] = []

    def look(text: str) -> str:
        seen.append(text)
        return text

    map_strings(value, look)
    return any(REDACTED in text for text in seen)


def _partner(value: Json, live: list[Json], at: int) -> Json:
    if isinstance(value, dict):
        for name in _IDENTITIES:
            wanted = value.get(name)
            if isinstance(wanted, str) and not is_redacted(wanted):
                same = [each for each in live if isinstance(each, dict) and each.get(name) == wanted]
                return same[0] if len(same) == 1 else None
    there = live[at] if at < len(live) else None
    return there if _agrees(value, there) else None


def _agrees(archived: Json, live: Json) -> bool:
    """Whether the live value is the archived one but for what was redacted."""
    if isinstance(archived, dict):
        if not isinstance(live, dict) or archived.keys() != live.keys():
            return False
        return all(_agrees(value, live[name]) for name, value in archived.items())
    if isinstance(archived, list):
        if not isinstance(live, list) or len(archived) != len(live):
            return False
        return all(_agrees(value, there) for value, there in zip(archived, live, strict=True))
    if isinstance(archived, str) and REDACTED in archived:
        return isinstance(live, str) and live != ""
    return archived == live and isinstance(archived, Number) == isinstance(live, Number)
