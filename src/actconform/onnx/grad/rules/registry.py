"""The registry of gradient rules: which operator has one, and what a rule sees of its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias

from actconform.errors import UnsupportedOperator

if TYPE_CHECKING:
    from actconform.onnx.grad.rules.graph_builder import GraphBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of the forward graph as its rule sees it.

    An optional input that is left out is ''; `opset` is the standard's, whatever the domain. `attributes` has bytes as str;
    for an operator of the standard it holds the default at `opset` where the graph is silent. `captured` has the tensors that
    graphs inside the node read from around it. `wanted` says of each input, and then of each of `captured`, whether its
    cotangent is needed.
    """

    name: str
    op_type: str
    domain: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    wanted: tuple[bool, ...]
    captured: tuple[str, ...] = ()

    def input(self, i: int) -> str | None:
        """Return the name of input `i`, or None where it is left out."""
        return (self.inputs[i] or None) if i < len(self.inputs) else None

    def output(self, i: int) -> str | None:
        """Return the name of output `i`, or None where it is left out."""
        return (self.outputs[i] or None) if i < len(self.outputs) else None

    def wants(self, i: int) -> bool:
        """Say whether input `i` is there and its cotangent needed."""
        return i < len(self.wanted) and self.wanted[i]

    @property
    def label(self) -> str:
        """What messages call this node: its operator with domain and opset, and its name or else its outputs."""
        where = self.name or "-> " + ", ".join(name for name in self.outputs if name)
        return f"operator {self.op_type} (domain {self.domain or 'ai.onnx'}, opset {self.opset}) at node {where}"

    def refuse(self, reason: str) -> UnsupportedOperator:
        """Return the error, to be raised, that no gradient passes this node: `reason` says what it lacks."""
        return UnsupportedOperator(f"no gradient of {self.label}: {reason}")


Cotangents: TypeAlias = Sequence[str | None]
Rule: TypeAlias = Callable[["GraphBuilder", Node, Cotangents], Cotangents]

RULES: dict[tuple[str, str], Rule] = {}  # by domain and operator
STANDARD = ("", "ai.onnx")  # the two spellings of the standard's domain

# What a float goes in and only counts, truth values, indices or steps come out of: constant almost everywhere, so that the
# derivative is zero. Random draws do not depend on the tensor whose shape they take.
ZERO_DERIVATIVE = frozenset(
    """
    And ArgMax ArgMin Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Constant ConstantOfShape Equal
    EyeLike Floor Greater GreaterOrEqual Hardmax IsInf IsNaN Less LessOrEqual Multinomial NonMaxSuppression NonZero Not Or
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Round Shape Sign Size Xor
    """.split()  # noqa: SIM905  a list to read
)


def rule_of(domain: str, op_type: str) -> Rule | None:
    """Return the rule of an operator, None where it has none; the standard's domain may be spelled either way."""
    return RULES.get(("" if domain in STANDARD else domain, op_type))


def rule(*op_types: str, domain: str = "", widen: bool = False) -> Callable[[Rule], Rule]:
    """Register a function as the gradient rule of the operators `op_types` of `domain`, by default of the standard.

    It receives the builder, the node, and the name of the cotangent of each output (None where none flows); it adds nodes and
    returns the name of the cotangent of each input, and of each captured tensor, shaped and typed as that, None where there is
    none. Trailing Nones may be left out. It may compute those alone that `node.wanted` asks for. With `widen` it computes in float32
    where the node is of a 16-bit type: it sees casts of the tensors, and what it returns is rounded once. Without, and for what only
    moves data, it computes in the node's own type:

        @rule("Neg")
        def neg(b, node, g):
            return [b.Neg(g[0])]

    Raises ValueError where an operator has a rule already.
    """

    def register(function: Rule) -> Rule:
        standard = domain in STANDARD
        for op_type in op_types:
            if rule_of(domain, op_type) or (standard and op_type in ZERO_DERIVATIVE):
                whose = "" if standard else f" of domain {domain!r}"
                raise ValueError(f"two gradient rules for operator {op_type!r}{whose}")
            RULES["" if standard else domain, op_type] = _widened(function) if widen else function
        return function

    return register


def _widened(function: Rule) -> Rule:
    @wraps(function)
    def vjp(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
        return b.widened(function, node, g)

    return vjp
