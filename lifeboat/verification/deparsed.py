"""One canonical text for expressions that PostgreSQL deparses.

What pg_get_viewdef() and its kin print is not stable over a dump and restore, since reading the text back gives
another tree. Two cases, both with PostgreSQL 15 and 18:

- `varchar_column IN ('a', 'b')`: `(ARRAY['a'::character varying, …])::text[]` comes back with the cast pushed down to
  the elements, `ARRAY[('a'::character varying)::text, …]`;
- `x BETWEEN 1 AND 2 AND y`: `(((x >= 1) AND (x <= 2)) AND y)` comes back flat, and so does OR.

Here the cast is pushed down and AND and OR are flattened, which changes no meaning. All else stays as it is.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""
      (?:[EeBbXxNn]|[Uu]&)?'(?:[^']|'')*'   # in what PostgreSQL prints, quotes are doubled and never escaped
    | "(?:[^"]|"")*"
    | [^\W\d][\w$]*
    | \d[\w.]*
    | ::
    | [-+*/<>=~!@#%^&|`?]+
    | \S
    """,
    re.VERBOSE,
)
_CLOSES = {"(": ")", "[": "]"}
_TYPE_WORD = re.compile(r'^(?:[^\W\d][\w$]*|"(?:[^"]|"")*"|\.)$')


@dataclass(frozen=True)
class _Node:
    """A token or a closed bracket; `operands` belong to a group's AND or OR, `elements` to ARRAY[…]."""

    text: str
    bracket: str = ""
    connective: str = ""
    operands: tuple[str, ...] = ()
    elements: tuple[str, ...] | None = None


@dataclass
class _Frame:
    opener: str = ""
    nodes: list[_Node] = field(default_factory=list)


def canonical(deparsed: str) -> str:
    """The canonical text of a deparsed expression or statement; never apply it to a function's source."""
    stack = [_Frame()]
    for token in _TOKEN.findall(deparsed):
        if token in _CLOSES:
            stack.append(_Frame(token))
        elif len(stack) > 1 and token == _CLOSES[stack[-1].opener]:
            closed = stack.pop()
            _append(stack[-1].nodes, _close(closed))
        else:
            stack[-1].nodes.append(_Node(token))
    if len(stack) > 1:  # not an expression as we know it: only its blanks are made uniform
        return " ".join(_TOKEN.findall(deparsed))
    return _join(_push_casts_down(stack[0].nodes))


def _join(nodes: Iterable[_Node]) -> str:
    return " ".join(node.text for node in nodes)


def _append(nodes: list[_Node], node: _Node) -> None:
    if node.bracket == "[" and nodes and nodes[-1].text == "ARRAY":
        nodes[-1] = _array(node.operands)
    else:
        nodes.append(node)


def _array(elements: Sequence[str]) -> _Node:
    return _Node(f"ARRAY [ {' , '.join(elements)} ]", elements=tuple(elements))


def _close(frame: _Frame) -> _Node:
    nodes = _push_casts_down(frame.nodes)
    if frame.opener == "[":
        elements = tuple(_join(part) for part in _split(nodes, ",")) if nodes else ()
        return _Node(f"[ {_join(nodes)} ]", "[", operands=elements)
    words = {node.text for node in nodes if node.text in {"AND", "OR"}}
    if len(words) == 1:
        word = words.pop()
        operands = tuple(_operands(nodes, word))
        return _Node(f"( {f' {word} '.join(operands)} )", "(", word, operands)
    elements_inside = nodes[0].elements if len(nodes) == 1 and not nodes[0].bracket else None
    return _Node(f"( {_join(nodes)} )", "(", elements=elements_inside)


def _split(nodes: Sequence[_Node], separator: str) -> Iterable[list[_Node]]:
    part: list[_Node] = []
    for node in nodes:
        if node.text == separator:
            yield part
            part = []
        else:
            part.append(node)
    yield part


def _operands(nodes: Sequence[_Node], word: str) -> Iterable[str]:
    for part in _split(nodes, word):
        if len(part) == 1 and part[0].connective == word:
            yield from part[0].operands
        else:
            yield _join(part)


def _push_casts_down(nodes: list[_Node]) -> list[_Node]:
    found: list[_Node] = []
    at = 0
    while at < len(nodes):
        node = nodes[at]
        end = _array_type_end(nodes, at + 1) if node.bracket == "(" and node.elements else None
        if end is None or node.elements is None:
            found.append(node)
            at += 1
            continue
        element_type = _join(nodes[at + 2 : end - 1])
        found.append(_array([f"( {element} ) :: {element_type}" for element in node.elements]))
        at = end
    return found


def _array_type_end(nodes: Sequence[_Node], at: int) -> int | None:
    """Where `:: type []` that starts at `at` ends, or None."""
    if at >= len(nodes) or nodes[at].text != "::":
        return None
    for index in range(at + 1, len(nodes)):
        node = nodes[index]
        if node.bracket == "[":
            return index + 1 if not node.operands and index > at + 1 else None
        # A type's modifier is a group: character varying(20).
        if not (node.bracket == "(" or _TYPE_WORD.match(node.text)):
            return None
    return None
