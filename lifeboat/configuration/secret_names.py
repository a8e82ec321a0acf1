"""Which settings hold secrets, judged by their names: `smtp_password`, `apiKey`, `repo1-cipher-pass` …"""

import re
from collections.abc import Sequence
from functools import lru_cache

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"\W+")

# The end of a name decides: `password_file` names a file, `password_min_length` a number, `password_hash` is one.
_ENDING = r"(?:_?(?:hash|digest|value|text|plain|base64|b64|encrypted|old|new|current|\d+))*$"
_STRONG = re.compile(
    r"(?:pass(?:word|wd|phrase|code)s?|secrets?|(?:^|_)(?:pwd|credentials?|authorization|cookies?|private_?key|pgpassword)"
    r"|(?:cipher|db|database|smtp|imap|ftp|sftp|proxy|user|admin|root|key|auth|basic|redis|mysql|pg)_?pass"
    r"|(?:secret|private|encryption|signing|master|service_account|ssh|age|gpg|jwt|hmac|webhook)_?keys?)" + _ENDING
)
# `pad_token` and its kind belong to language models, `trigger_token` to image models.
_TOKEN = re.compile(
    r"(?<!trigger_)(?<!pad_)(?<!eos_)(?<!bos_)(?<!unk_)(?<!sep_)(?<!cls_)(?<!mask_)(?<!stop_)(?<!start_)(?<!end_)"
    r"(?<!special_)(?<!placeholder_)(?<!initializer_)(?<!class_)(?<!instance_)token"
    + _ENDING
    + r"|(?:access|auth|api|refresh|bearer|bot|device|session|personal|csrf)_?tokens?"
    + _ENDING
)
_API_KEY = re.compile(r"(?:api|access|account|client|license|s3|azure|gcs|aws|app|auth|admin|shared)_?keys?" + _ENDING)
_ANY_KEY = re.compile(r"(?:^|_)key" + _ENDING)
_ANY_TOKENS = re.compile(r"(?:^|_)tokens" + _ENDING)
_LOOKS_RANDOM = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[\w+/=.~-]{20,}", re.ASCII)
# A reference to a secret is none: ${TOKEN}, $TOKEN, {{ token }}, %(token)s, env:TOKEN, <your token>.
_REFERENCE = re.compile(r"\$\{\w+\}|\$[A-Z_][A-Z0-9_]*|\{\{[^{}]*\}\}|%\(\w+\)s|env:[A-Z_][A-Z0-9_]*|<[\w -]+>")


def snake_case(name: str) -> str:
    """`apiKey`, `api-key` and `API_KEY` in one spelling: `api_key`."""
    return _NOT_WORD.sub("_", _CAMEL.sub("_", name)).lower().strip("_")


def is_reference(value: str) -> bool:
    """Whether a value only says where a secret is: `${TOKEN}`, `{{ token }}`, `env:TOKEN`."""
    return _REFERENCE.fullmatch(value) is not None


class SecretNames:
    """Judges names; `redact` adds regular expressions, `keep` takes names out again."""

    def __init__(self, redact: Sequence[str] = (), keep: Sequence[str] = ()) -> None:
        self._redact = [re.compile(pattern) for pattern in redact]
        self._keep = [re.compile(pattern) for pattern in keep]
        # A long text asks about the same few names again and again.
        self.is_suspect = lru_cache(maxsize=4096)(self._is_suspect)

    def is_kept(self, name: str) -> bool:
        """Whether settings say that this name holds no secret."""
        return any(pattern.search(snake_case(name)) for pattern in self._keep)

    def is_strong(self, name: str) -> bool:
        """Whether anything under this name is a secret, numbers and lists included."""
        plain = snake_case(name)
        if self.is_kept(name):
            return False
        return bool(_STRONG.search(plain)) or any(pattern.search(plain) for pattern in self._redact)

    def _is_suspect(self, name: str) -> bool:
        """Whether some value under this name could be a secret."""
        plain = snake_case(name)
        found = _TOKEN.search(plain) or _API_KEY.search(plain) or _ANY_KEY.search(plain)
        return not self.is_kept(name) and (found is not None or self.is_strong(name))

    def is_secret(self, name: str, value: str, *, strict: bool) -> bool:
        """Whether this text under this name is a secret.

        `strict` is for settings files, where anything named a key is one; elsewhere `key` names many things, and only
        what looks random counts.
        """
        if not value or self.is_kept(name) or is_reference(value):
            return False
        plain = snake_case(name)
        if self.is_strong(name) or _TOKEN.search(plain) or _API_KEY.search(plain):
            return True
        if strict and _ANY_TOKENS.search(plain):
            return True
        return _ANY_KEY.search(plain) is not None and (strict or _LOOKS_RANDOM.fullmatch(value) is not None)
