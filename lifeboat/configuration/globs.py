"""Globs over paths below a folder: `*`, `?`, `[…]` stay within a name, `**` crosses folders."""

import re
from collections.abc import Sequence


class Globs:
    """Several globs; a path matches when one of them does. One without a slash matches the name at any depth."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [re.compile(_translate(pattern)) for pattern in patterns]

    def match(self, path: str) -> bool:
        """Whether the path (with slashes, relative) or a folder above it matches."""
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return any(pattern.fullmatch(each) for pattern in self._patterns for each in above)


def _translate(pattern: str) -> str:
    pattern = pattern.strip("/") if "/" in pattern.strip("/") or pattern == "**" else f"**/{pattern.strip('/')}"
    pieces, at = [], 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            pieces.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            pieces.append(".*")
            at += 2
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inner = pattern[at + 1 : end].replace("\\", "\\\\")
            pieces.append(f"[^{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]")
            at = end + 1
        else:
            pieces.append({"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at])))
            at += 1
    return "(?s:" + "".join(pieces) + ")"
