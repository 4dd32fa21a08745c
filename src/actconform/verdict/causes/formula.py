"""Formulas as text: a few words of arithmetic, checked when they are read, evaluated in any `Arithmetic`.

    g * (1 - y) * y ; y = sigmoid(x)

The first part is the result, each further one defines a name for those before it. Words: + - * /, comparisons, & | ~, numbers, the
kernel's inputs and parameters, g for the cotangent, and the functions of `FUNCTIONS`. `r(...)` rounds to the case's dtype where an
operator ends and the implementation computes wider in between. a and b are the halves of the last axis; `halves(..., ...)` puts two
results side by side.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable  # noqa: TC003  of a table
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.errors import FormulaError
from actconform.text import number_of
from actconform.verdict.causes import primitives
from actconform.verdict.causes.arithmetic import Condition, Number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actconform.verdict.causes.arithmetic import Arithmetic

LONGEST = 2000  # characters of a text, far beyond any formula
KEYWORD = re.compile(r"\blambda\b")  # a parameter's name that Python's grammar keeps for itself
OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
}
COMPARISONS: dict[type[ast.AST], Any] = {
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Eq: np.equal,
}
ROWS = ("rowmax", "sum", "softmax", "logsoftmax")
ARGUMENTS: dict[str, int] = {
    **dict.fromkeys(
        (
            *primitives.LIBRARY_FUNCTIONS,
            "erf_gelu",
            "log",
            "abs",
            "sign",
            "logistic",
            "r",
            "mask",
            "square",
            "reciprocal",
        ),
        1,
    ),
    **dict.fromkeys(("hypot", "maximum", "minimum", "fmax", "fmin", "halves"), 2),
    **dict.fromkeys(("where", "clip"), 3),
    **dict.fromkeys(ROWS, 1),
}
FUNCTIONS = tuple(ARGUMENTS)


class Scope(NamedTuple):
    """What a formula is evaluated with: its names, and how operators round.

    `steps` is the arithmetic of every operation, `ends` that of the case's dtype, where r() and the result round to. `axis` is
    that of row functions.
    """

    names: Mapping[str, Number]
    steps: Arithmetic
    ends: Arithmetic
    axis: int = -1


class Formula:
    """One text, parsed: which names it reads, and its value in a scope."""

    def __init__(self, text: str) -> None:
        """Parse `text`; raises FormulaError, naming the part, where it is no formula."""
        if len(text) > LONGEST:
            raise FormulaError(f"a formula of {number_of(len(text), 'character')}; {LONGEST} at most")
        self.text = " ".join(text.split())
        result, *definitions = KEYWORD.sub("lambda_", text).split(";")
        self._lines: list[tuple[str, ast.expr]] = []
        for line in reversed(definitions):
            name, equals, body = line.partition("=")
            if not equals or not name.strip().isidentifier() or body.startswith("="):
                raise FormulaError(f"{line.strip()!r} is no definition: expected NAME = EXPRESSION after ';'")
            if name.strip() in FUNCTIONS:
                raise FormulaError(f"{name.strip()!r} is a function: it cannot be defined")
            self._lines.append((name.strip(), _parsed(body)))
        self._result = _parsed(result)
        self.names = frozenset(self._free())

    def _free(self) -> Iterator[str]:
        defined: set[str] = set()
        for name, tree in [*self._lines, ("", self._result)]:
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and node.id not in FUNCTIONS and node.id not in defined:
                    yield node.id.replace("lambda_", "lambda")
            defined.add(name)

    def evaluate(self, scope: Scope) -> Number:
        """Return the value in the case's dtype. Raises FormulaError where a name is not in the scope."""
        names: dict[str, Any] = {name.replace("lambda", "lambda_"): number for name, number in scope.names.items()}
        for name, tree in self._lines:
            names[name] = _value(tree, names, scope)
        result = _value(self._result, names, scope)
        if not isinstance(result, Number):
            raise FormulaError(f"{self.text!r} gives no number for each element")
        return result.rounded_to(scope.ends)

    def __repr__(self) -> str:
        return f"Formula({self.text!r})"


def _parsed(text: str) -> ast.expr:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FormulaError(f"{text.strip()!r} does not parse: {error.args[0]}") from error
    _check(tree)
    return tree


def _check(node: ast.expr) -> None:
    """Raise FormulaError at the first part that is none of a formula's."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            parts = [left, right]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Invert(), operand=operand):
            parts = [operand]
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            parts = [left, right]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if name not in ARGUMENTS:
                raise FormulaError(f"{name!r} is no function of formulas: expected one of {', '.join(FUNCTIONS)}")
            if len(arguments) != ARGUMENTS[name]:
                raise FormulaError(f"{name} takes {number_of(ARGUMENTS[name], 'argument')}, not {len(arguments)}")
            parts = list(arguments)
        case ast.Name() | ast.Constant(value=int() | float()) if not isinstance(getattr(node, "value", 0), bool):
            parts = []
        case _:
            raise FormulaError(f"{ast.unparse(node)!r} is no part of a formula")
    if isinstance(node, ast.Name) and node.id in FUNCTIONS:
        raise FormulaError(f"{node.id} is a function: expected {node.id}(...)")
    for part in parts:
        _check(part)


def _value(node: ast.expr, names: Mapping[str, Any], scope: Scope) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            if name not in names:
                raise FormulaError(f"no value for {name!r}: expected one of {', '.join(sorted(names))}")
            return names[name]
        case ast.UnaryOp(op=op, operand=operand):
            inner = _value(operand, names, scope)
            return ~inner if isinstance(op, ast.Invert) else -inner if isinstance(op, ast.USub) else inner
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            a, b = _value(left, names, scope), _value(right, names, scope)
            return _number(a, scope).compared(b, COMPARISONS[type(op)])
        case ast.BinOp(left=left, op=op, right=right):
            return OPERATORS[type(op)](_value(left, names, scope), _value(right, names, scope))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _call(name, [_value(argument, names, scope) for argument in arguments], scope)
    raise FormulaError(f"{ast.unparse(node)!r} is no part of a formula")


def _number(part: Any, scope: Scope) -> Number:
    """Return a plain number as a constant of the arithmetic of the steps."""
    if isinstance(part, float):
        nothing = np.zeros(())
        return Number(nothing, nothing, scope.steps).operand(part)
    if isinstance(part, Number):
        return part
    raise FormulaError("a condition where a number is expected")


def _call(name: str, arguments: list[Any], scope: Scope) -> Any:
    if name in ("where", "mask") and not isinstance(arguments[0], Condition):
        raise FormulaError(f"{name}(...) needs a comparison first")
    if name == "where":
        condition, yes, no = arguments
        return primitives.where(condition, _number(yes, scope), no)
    if name == "mask":
        return primitives.mask(arguments[0], _number(0.0, scope))
    numbers = [_number(argument, scope) for argument in arguments]
    if name in primitives.LIBRARY_FUNCTIONS:
        return primitives.primitive(name, numbers[0])
    return COMPUTED[name](scope, *numbers)


COMPUTED: dict[str, Callable[..., Number]] = {
    "abs": lambda _, x: abs(x),
    "clip": lambda _, x, low, high: primitives.clip(x, low, high),
    "erf_gelu": lambda _, x: primitives.primitive("erf", x, "erf_gelu"),
    "fmax": lambda _, x, y: primitives.maximum(x, y, "skipped"),
    "fmin": lambda _, x, y: primitives.minimum(x, y, "skipped"),
    "halves": lambda _, x, y: _side_by_side(x, y),
    "hypot": lambda _, x, y: primitives.hypot(x, y),
    "log": lambda _, x: primitives.log(x),
    "logistic": lambda _, x: 1.0 / (1.0 + primitives.primitive("exp", -x)),
    "logsoftmax": lambda scope, x: primitives.softmax(x, scope.axis, logarithm=True),
    "maximum": lambda _, x, y: primitives.maximum(x, y),
    "minimum": lambda _, x, y: primitives.minimum(x, y),
    "reciprocal": lambda _, x: primitives.reciprocal(x),
    "r": lambda scope, x: x.rounded_to(scope.ends).rounded_to(scope.steps),
    "rowmax": lambda scope, x: primitives.largest(x, scope.axis),
    "sign": lambda _, x: primitives.sign(x),
    "softmax": lambda scope, x: primitives.softmax(x, scope.axis),
    "square": lambda _, x: primitives.square(x),
    "sum": lambda scope, x: primitives.total(x, scope.axis),
}


def _side_by_side(left: Number, right: Number) -> Number:
    value = np.concatenate([left.value, right.value], axis=-1)
    return Number(value, np.concatenate([left.error, right.error], axis=-1), left.arithmetic)
