"""Small expressions over a point's values: "2 * workload.batch", "system == 'h200x8' and workload.batch > 8".

Arithmetic, comparisons, `and`, `or`, `not`, `in`, `a if c else b`, and a few functions; nothing else. An axis is named
by its path, dots included. The value of a quantity is its number, in the unit of its axis.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from archsim.config.errors import UserError, listed, nearest_name

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.Not: operator.not_}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": round,
    "sqrt": math.sqrt,
}
_EXPECTED = "numbers, texts, names of axes, + - * / // %, comparisons, and, or, not, in, if/else, " + ", ".join(
    _FUNCTIONS
)


class Expression:
    """A parsed expression. Raises UserError if `text` is not one."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._body = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError):
            raise UserError(f"'{text}' is not an expression", expected=_EXPECTED) from None
        self.names = frozenset(self._names(self._body))

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Its value where each name has the value given. Raises UserError if a name is missing or it can't be had."""
        try:
            return self._value(self._body, values)
        except (TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"'{self.text}' can't be computed: {error}") from None

    def _names(self, node: ast.AST) -> list[str]:
        """The names in an expression, after a check that it holds nothing else than it may."""
        match node:
            case ast.Name() | ast.Attribute():
                return [self._dotted(node)]
            case ast.Constant(value=bool() | int() | float() | str() | None):
                return []
            case ast.BinOp(left, op, right) if type(op) in _BINARY:
                parts = [left, right]
            case ast.UnaryOp(op, operand) if type(op) in _UNARY:
                parts = [operand]
            case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
                pass
            case ast.Compare(left, ops, others) if all(type(op) in _COMPARE for op in ops):
                parts = [left, *others]
            case ast.IfExp(test, body, orelse):
                parts = [test, body, orelse]
            case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in _FUNCTIONS:
                pass
            case _:
                raise UserError(f"'{self.text}': '{ast.unparse(node)}' can't stand here", expected=_EXPECTED)
        return [name for part in parts for name in self._names(part)]

    def _dotted(self, node: ast.AST) -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        raise UserError(f"'{self.text}': '{ast.unparse(node)}' can't stand here", expected=_EXPECTED)

    def _value(self, node: ast.AST, values: Mapping[str, Any]) -> Any:
        def value(part: ast.AST) -> Any:
            return self._value(part, values)

        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.BinOp(left, op, right):
                return _BINARY[type(op)](value(left), value(right))
            case ast.UnaryOp(op, operand):
                return _UNARY[type(op)](value(operand))
            case ast.BoolOp(ast.And(), parts):
                return all(value(part) for part in parts)
            case ast.BoolOp(_, parts):
                return any(value(part) for part in parts)
            case ast.Compare(left, ops, others):
                terms = [value(left), *(value(other) for other in others)]
                return all(_COMPARE[type(op)](terms[i], terms[i + 1]) for i, op in enumerate(ops))
            case ast.IfExp(test, body, orelse):
                return value(body) if value(test) else value(orelse)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [value(part) for part in parts]
            case ast.Call(func=ast.Name(id=name), args=parts):
                return _FUNCTIONS[name](*(value(part) for part in parts))
        return self._named(self._dotted(node), values)

    def _named(self, name: str, values: Mapping[str, Any]) -> Any:
        if name not in values:
            raise UserError(
                f"'{self.text}': there is no '{name}' here",
                expected=listed(values, 8) or "an axis further up",
                nearest=nearest_name(name, values),
            )
        return values[name]
