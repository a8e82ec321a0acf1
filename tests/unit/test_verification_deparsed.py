"""Canonical text of deparsed expressions: what a dump and restore changes is undone, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.verification.deparsed import canonical

# What PostgreSQL 15 and 18 print for a definition, and for its restored copy.
SAME = [
    (
        "CHECK (((VALUE)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))",
        "CHECK (((VALUE)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])))",
    ),
    ("CHECK ((((x >= 1) AND (x <= 5)) AND (y > 0)))", "CHECK (((x >= 1) AND (x <= 5) AND (y > 0)))"),
    (
        "CASE WHEN (((t.x < 1) OR (t.x > 2)) OR (t.y = 1)) THEN 3 END",
        "CASE\n    WHEN ((t.x < 1) OR (t.x > 2) OR (t.y = 1)) THEN 3\nEND",
    ),
    (
        "((ARRAY[f(x), (a || b)])::character varying(20)[])",
        "(ARRAY[(f(x))::character varying(20), ((a || b))::character varying(20)])",
    ),
    ('((ARRAY[a])::"my schema"."my type"[])', '(ARRAY[(a)::"my schema"."my type"])'),
]
DIFFERENT = [
    ("((a AND b) OR c)", "(a AND (b OR c))"),
    ("((a + b) * c)", "(a + (b * c))"),
    ("(NOT (a AND b))", "((NOT a) AND b)"),
    ("('a b'::text)", "('a  b'::text)"),
    ("('(a AND b) AND c'::text)", "('a AND b AND c'::text)"),
    ("(x = 'it''s')", "(x = 'its')"),
    ('("A" > 1)', '("a" > 1)'),
    ("((ARRAY[a])::text[])", "((ARRAY[a])::varchar[])"),
    ("(ARRAY[a, b])", "(ARRAY[b, a])"),
    ('("a  b" > 1)', '("a b" > 1)'),
    ("(x -> 'a')", "(x ->> 'a')"),
    ("(x::numeric(10,2))", "(x::numeric(10,3))"),
]


@pytest.mark.parametrize(("original", "restored"), SAME)
def test_two_texts_of_one_expression_are_one(original: str, restored: str) -> None:
    assert canonical(original) == canonical(restored)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_two_expressions_stay_two(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


atoms = st.sampled_from(["a", "b", "(x >= 1)", "(y = 'AND (')", "f(a, b)", "(NOT c)"])
# A tree of AND and OR as nested tuples, so that a test can print it nested or flat.
words = st.sampled_from(["AND", "OR"])
trees = st.recursive(atoms, lambda inner: st.tuples(words, st.lists(inner, min_size=2, max_size=3)), max_leaves=9)
Tree = str | tuple[str, list["Tree"]]


def nested(tree: Tree) -> str:
    """Every operator in brackets of its own."""
    if isinstance(tree, str):
        return tree
    word, operands = tree
    text = nested(operands[0])
    for operand in operands[1:]:
        text = f"({text} {word} {nested(operand)})"
    return text


def flat(tree: Tree) -> str:
    """Operands of the same operator in one bracket, as PostgreSQL prints what it has read."""
    return tree if isinstance(tree, str) else f"({f' {tree[0]} '.join(_flat_operands(tree))})"


def _flat_operands(tree: tuple[str, list[Tree]]) -> list[str]:
    found = []
    for operand in tree[1]:
        if isinstance(operand, tuple) and operand[0] == tree[0]:
            found += _flat_operands(operand)
        else:
            found.append(flat(operand))
    return found


@given(trees)
def test_nesting_of_one_operator_does_not_count(tree: Tree) -> None:
    assert canonical(nested(tree)) == canonical(flat(tree))


@given(st.text(alphabet="ab()[],:'\" AND OR ARRAY ::text[]1.=", max_size=60))
def test_any_text_has_a_canonical_form(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)


def test_deep_nesting_is_no_problem() -> None:
    assert canonical("(" * 5000 + "a" + ")" * 5000).count("(") == 5000
