"""The text of an expression → a tree, and the tree → text again.

    expression := conjunction ("or" conjunction)*
    conjunction := negation ("and" negation)*
    negation   := "not" negation | comparison
    comparison := sum (("==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not" "in") sum)?
    sum        := product (("+" | "-") product)*
    product    := factor (("*" | "/" | "%") factor)*
    factor     := "-" factor | number | string | "true" | "false" | "null"
                | "(" expression ")" | "[" (expression ("," expression)*)? "]"
                | word "(" (expression ("," expression)*)? ")"
                | word ("." word | "[" whole number "]" | "[" string "]")*

Nothing here knows what a name or a function means: `formula` does. Text is bounded in
length, a tree in height, so neither parsing nor evaluating can take long or go deep.
"""

from __future__ import annotations

import json
from typing import Final, TypeAlias

import msgspec

from bridge.policy.tokens import END, WORD, ExpressionError, Tokens

__all__ = [
    "KEYWORDS",
    "Binary",
    "Call",
    "ExpressionError",
    "Junction",
    "Listing",
    "Literal",
    "Name",
    "Node",
    "Path",
    "Unary",
    "parse",
    "spell",
    "spell_path",
]

TEXT_CHARS_MAX: Final = 4096
HEIGHT_MAX: Final = 40
KEYWORDS: Final = frozenset({"and", "or", "not", "in", "true", "false", "null"})

Path: TypeAlias = tuple[str | int, ...]
"""A name in steps: `payload.a[0]` is ("payload", "a", 0)."""


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    at: int = 0  # where it stands
    height: int = 1


class Literal(_Part, frozen=True):
    """Text, a number, true, false or null as it was written."""

    value: str | int | float | bool | None


class Name(_Part, frozen=True):
    """Something that a message has."""

    path: Path


class Listing(_Part, frozen=True):
    """`[a, b]`."""

    items: tuple[Node, ...]


class Call(_Part, frozen=True):
    """`function(arguments)`."""

    function: str
    arguments: tuple[Node, ...]


class Unary(_Part, frozen=True):
    """`not x` or `-x`."""

    operator: str
    operand: Node


class Binary(_Part, frozen=True):
    """A comparison, or a calculation with two operands."""

    operator: str
    left: Node
    right: Node


class Junction(_Part, frozen=True):
    """`a and b and c`, or the same with `or`; two parts at least, in order."""

    operator: str
    parts: tuple[Node, ...]


Node: TypeAlias = Literal | Name | Listing | Call | Unary | Binary | Junction

_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "not in"})
_BINDS: Final = {
    "or": 1,
    "and": 2,
    **dict.fromkeys(_COMPARISONS, 4),
    **dict.fromkeys(("+", "-"), 5),
    **dict.fromkeys(("*", "/", "%"), 6),
}
_NOT: Final = 3
_MINUS: Final = 7


def parse(text: str) -> Node:
    """Parse the whole text as one expression. Raises ExpressionError."""
    if len(text) > TEXT_CHARS_MAX:
        raise ExpressionError(f"longer than {TEXT_CHARS_MAX} characters", 0)
    parser = _Parser(text)
    tree = parser.expression(0, 0)
    parser.expect_end()
    return tree


class _Parser:
    """Precedence climbing over tokens that are made when they are needed."""

    def __init__(self, text: str) -> None:
        self._tokens = Tokens(text)
        self._next = self._tokens.read()

    # ---- the grammar ---------------------------------------------------------------

    def expression(self, binds: int, depth: int) -> Node:
        """What binds more tightly than `binds`."""
        if depth > HEIGHT_MAX:
            raise ExpressionError(f"nested more than {HEIGHT_MAX} deep", self._next.at)
        left = self._factor(binds, depth)
        while True:
            operator = self._operator()
            power = _BINDS.get(operator, 0)
            if power <= binds:
                return left
            at = self._next.at
            if operator in ("and", "or"):
                left = self._junction(left, operator, at, depth)
                continue
            self._skip_operator(operator)
            right = self.expression(power, depth + 1)
            left = self._grown(
                Binary(operator, left, right, at=at, height=1 + max(left.height, right.height))
            )
            if operator in _COMPARISONS and self._operator() in _COMPARISONS:
                raise ExpressionError(
                    "comparisons do not chain; write 'a < b and b < c', or parentheses", self._next.at
                )

    def _junction(self, first: Node, operator: str, at: int, depth: int) -> Node:
        parts = [first]
        while self._operator() == operator:
            self._advance()
            parts.append(self.expression(_BINDS[operator], depth + 1))
        height = 1 + max(part.height for part in parts)
        return self._grown(Junction(operator, tuple(parts), at=at, height=height))

    def _grown(self, node: Node) -> Node:
        if node.height > HEIGHT_MAX:
            raise ExpressionError(f"nested more than {HEIGHT_MAX} deep", node.at)
        return node

    def _operator(self) -> str:
        token = self._next
        if token.kind == "sign":
            return token.text
        if token.kind == "word" and token.text in ("and", "or", "in"):
            return token.text
        if token.kind == "word" and token.text == "not":
            return "not in"  # only `in` may follow where an operator stands
        return ""

    def _skip_operator(self, operator: str) -> None:
        self._advance()
        if operator == "not in":
            if self._next.text != "in" or self._next.kind != "word":
                raise ExpressionError("only 'in' can follow this 'not'", self._next.at)
            self._advance()

    def _factor(self, binds: int, depth: int) -> Node:
        token = self._next
        match token.kind, token.text:
            case "word", "not":
                if binds > _NOT:
                    raise ExpressionError("put 'not …' into parentheses here", token.at)
                self._advance()
                operand = self.expression(_NOT - 1, depth + 1)
                return self._grown(Unary("not", operand, at=token.at, height=1 + operand.height))
            case "sign", "-":
                self._advance()
                operand = self.expression(_MINUS, depth + 1)
                if (
                    isinstance(operand, Literal)
                    and isinstance(operand.value, int | float)
                    and not isinstance(operand.value, bool)
                ):
                    return Literal(-operand.value, at=token.at)
                return self._grown(Unary("-", operand, at=token.at, height=1 + operand.height))
            case "sign", "(":
                self._advance()
                inner = self.expression(0, depth + 1)
                self._close(")", token.at)
                return inner
            case "sign", "[":
                self._advance()
                items = self._items("]", token.at, depth)
                return self._grown(Listing(items, at=token.at, height=1 + _highest(items)))
            case (("number" | "string"), _):
                self._advance()
                return Literal(token.value, at=token.at)
            case "word", ("true" | "false" | "null") as word:
                self._advance()
                return Literal({"true": True, "false": False, "null": None}[word], at=token.at)
            case "word", word if word not in KEYWORDS:
                self._advance()
                if self._is_sign("("):
                    self._advance()
                    arguments = self._items(")", token.at, depth)
                    return self._grown(Call(word, arguments, at=token.at, height=1 + _highest(arguments)))
                return Name(self._path(word), at=token.at)
        if token.kind == END:
            raise ExpressionError("something is missing here", token.at)
        raise ExpressionError(f"unexpected {token.text!r}", token.at)

    def _items(self, closing: str, opened_at: int, depth: int) -> tuple[Node, ...]:
        items: list[Node] = []
        if not self._is_sign(closing):
            items.append(self.expression(0, depth + 1))
            while self._is_sign(","):
                self._advance()
                items.append(self.expression(0, depth + 1))
        self._close(closing, opened_at)
        return tuple(items)

    def _path(self, first: str) -> Path:
        path: list[str | int] = [first]
        while True:
            if self._is_sign("."):
                self._advance()
                if self._next.kind != "word":
                    raise ExpressionError('a name must follow the dot; write ["…"] for others', self._next.at)
                path.append(self._next.text)
                self._advance()
            elif self._is_sign("["):
                opened_at = self._next.at
                self._advance()
                step = self._next.value
                if self._next.kind not in ("number", "string") or isinstance(step, float):
                    raise ExpressionError("a whole number or a string must follow", self._next.at)
                path.append(step)
                self._advance()
                self._close("]", opened_at)
            else:
                return tuple(path)

    def _close(self, closing: str, opened_at: int) -> None:
        if self._is_sign(closing):
            self._advance()
        elif self._next.kind == END:
            opening = {")": "(", "]": "["}[closing]
            raise ExpressionError(f"{opening!r} without {closing!r}", opened_at)
        else:
            raise ExpressionError(f"unexpected {self._next.text!r}; {closing!r} is missing", self._next.at)

    def expect_end(self) -> None:
        """Raise ExpressionError if more follows."""
        token = self._next
        if token.kind == END:
            return
        if token.kind in ("word", "number", "string"):
            raise ExpressionError(f"unexpected {token.text!r}; an operator is missing", token.at)
        raise ExpressionError(f"unexpected {token.text!r}", token.at)

    # ---- tokens --------------------------------------------------------------------

    def _is_sign(self, sign: str) -> bool:
        return self._next.kind == "sign" and self._next.text == sign

    def _advance(self) -> None:
        self._next = self._tokens.read()


def _highest(nodes: tuple[Node, ...]) -> int:
    return max((node.height for node in nodes), default=0)


def spell(node: Node) -> str:
    """Return text that parses to the same tree."""
    match node:
        case Literal(value):
            return json.dumps(value, ensure_ascii=False)
        case Name(path):
            return spell_path(path)
        case Listing(items):
            return f"[{', '.join(map(spell, items))}]"
        case Call(function, arguments):
            return f"{function}({', '.join(map(spell, arguments))})"
        case Unary("not", operand):
            return f"not {_spell_inside(operand)}"
        case Unary(operator, operand):
            return f"{operator}{_spell_inside(operand)}"
        case Binary(operator, left, right):
            return f"{_spell_inside(left)} {operator} {_spell_inside(right)}"
        case Junction(operator, parts):
            return f" {operator} ".join(map(_spell_inside, parts))


def spell_path(path: Path) -> str:
    """Return `payload.a[0]["odd name"]`."""
    spelled = str(path[0])
    for step in path[1:]:
        if isinstance(step, int):
            spelled += f"[{step}]"
        elif WORD.fullmatch(step):
            spelled += f".{step}"
        else:
            spelled += f"[{json.dumps(step, ensure_ascii=False)}]"
    return spelled


def _spell_inside(node: Node) -> str:
    spelled = spell(node)
    return f"({spelled})" if isinstance(node, Unary | Binary | Junction) else spelled
