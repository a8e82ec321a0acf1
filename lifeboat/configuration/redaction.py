"""Replaces secrets by `***REDACTED***` and lists where they were; the list never says what they were."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lifeboat.configuration.content import RowsSection, key_of, label_of
from lifeboat.configuration.index import REDACTED, ConfigurationError, Redaction
from lifeboat.configuration.jsontext import Json, Number, Row, map_strings, parse, parse_all, render
from lifeboat.configuration.secret_names import SecretNames, snake_case
from lifeboat.configuration.secret_text import SecretText, holds_private_key

# `{"name": "SMTP_PASSWORD", "value": "…"}`: a list of settings rather than an object of them.
_NAMING = frozenset({"name", "key", "setting", "setting_name", "parameter", "param", "variable", "header", "env"})
_NAMED = frozenset({"value", "val", "default_value", "setting_value"})
_IDENTIFIER = re.compile(r"[A-Za-z_][\w.-]*")
_HEX = re.compile(r"\\x(?:[0-9a-f]{2})+")
# Shorter or simpler ones (the password `postgres`) turn up by chance, in names and in words.
_KNOWN_MIN_CHARACTERS = 8
_KNOWN_LONG_CHARACTERS = 16


class Redactor:
    """One export's judge of secrets. What it has taken out once, `sweep` finds wherever else it stands."""

    def __init__(self, redact: Sequence[str] = (), keep: Sequence[str] = ()) -> None:
        self.names = SecretNames(redact, keep)
        self.redactions: set[tuple[str, str, str]] = set()
        self._known: set[str] = set()
        self._text = SecretText(self.names, self.learn)

    def learn(self, secret: str) -> None:
        """Remember a secret."""
        classes = sum(re.search(kind, secret) is not None for kind in ("[a-z]", "[A-Z]", "[0-9]"))
        distinct = classes > 1 or len(secret) >= _KNOWN_LONG_CHARACTERS
        if len(secret) >= _KNOWN_MIN_CHARACTERS and distinct and REDACTED not in secret:
            self._known.add(secret)

    def listed(self) -> list[Redaction]:
        """Where secrets were taken out, in order."""
        return [Redaction(section=s, item=i, field=f) for s, i, f in sorted(self.redactions)]

    def note(self, section: str, item: str, field: str) -> None:
        """List a place where a secret was taken out."""
        self.redactions.add((section, item, field))

    def text(self, text: str) -> str:
        """A single string without the secrets in it."""
        return self._text.redact(text)

    def sweep(self, text: str) -> str:
        """The text without any secret that was taken out somewhere else."""
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, REDACTED) if secret in text else text
        return text

    def knows_secret_in(self, text: str) -> bool:
        """Whether a secret that was taken out somewhere else stands in the text."""
        return any(secret in text for secret in self._known)

    def section(self, name: str, section: RowsSection, *, strict: bool = False) -> RowsSection:
        """A section without secrets. Raises ConfigurationError where the key itself is one."""
        for column in section.key_columns:
            if self.names.is_strong(column):
                raise ConfigurationError(
                    f"the key column {column} of the section {name} has the name of a secret",
                    hint="Choose other key columns, or take the name out with `keep` in [configuration].",
                )
        keys = frozenset(section.key_columns)
        rows = tuple(
            self.row(name, label_of(key_of(row, section.key_columns)), row, keys=keys, strict=strict)
            for row in section.rows
        )
        return replace(section, rows=rows)

    def row(
        self, section: str, item: str, row: Row, *, keys: frozenset[str] = frozenset(), strict: bool = False
    ) -> Row:
        """One row without secrets; the texts of untouched fields stay exactly as they are."""
        named = self._secret_pair({column: parse(text) for column, text in row.items()})
        clean = dict(row)
        for column, text in row.items():
            if column in keys:
                continue
            value, hidden = parse_all(text)
            redacted = self._whole(column, value, strict=strict, secret=column in named)
            for path in _differences(column, value, redacted):
                self.note(section, item, path)
            # What is hidden by a later value of the same name is in the text all the same.
            if redacted != value or any(
                self._whole(name, inner, strict=strict, secret=False) != inner for name, inner in hidden
            ):
                clean[column] = render(redacted)
        return clean

    def tree(self, value: Json, *, name: str = "", strict: bool = True) -> Json:
        """A tree of settings without secrets."""
        return self._value(name, value, strict=strict, secret=False)

    def _whole(self, name: str, value: Json, *, strict: bool, secret: bool) -> Json:
        return map_strings(self._value(name, value, strict=strict, secret=secret), self.sweep)

    def _value(self, name: str, value: Json, *, strict: bool, secret: bool) -> Json:
        if isinstance(value, dict):
            named = self._secret_pair(value)
            secret = secret or self.names.is_strong(name)
            return {
                key: self._value(
                    key, inner, strict=strict, secret=key in named or (secret and not self.names.is_kept(key))
                )
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self._value(name, inner, strict=strict, secret=secret) for inner in value]
        if isinstance(value, Number):
            return self._taken(value) if secret or self.names.is_strong(name) else value
        if not isinstance(value, str):
            return value
        if (secret and value) or self.names.is_secret(name, value, strict=strict) or _is_key_material(value):
            return self._taken(value)
        return self.text(value)

    def _taken(self, value: str) -> str:
        self.learn(value)
        return REDACTED

    def _secret_pair(self, fields: Mapping[str, Json]) -> frozenset[str]:
        """The fields of `{"name": …, "value": …}` that hold what the name says is secret."""
        for column, value in fields.items():
            if snake_case(column) not in _NAMING or not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
                continue
            if self.names.is_secret(value, "any", strict=False):
                return frozenset(name for name in fields if snake_case(name) in _NAMED)
        return frozenset()


def _is_key_material(value: str) -> bool:
    if _HEX.fullmatch(value):
        return holds_private_key(bytes.fromhex(value[2:]).decode("latin-1"))
    return False


def _differences(path: str, before: Json, after: Json) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        return [found for key in before for found in _differences(f"{path}.{key}", before[key], after[key])]
    if isinstance(before, list) and isinstance(after, list):
        pairs = zip(before, after, strict=True)
        return [found for at, (old, new) in enumerate(pairs) for found in _differences(f"{path}[{at}]", old, new)]
    return [path] if before != after else []
