"""Programs of JAX (jaxprs) computed equation by equation: as they were traced, or with every float in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.extend import core

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDE = {
    "float16": np.dtype("float64"),
    "bfloat16": np.dtype("float64"),
    "float32": np.dtype("float64"),
    "complex64": np.dtype("complex128"),
}
INLINED = frozenset(
    ["jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat", "remat2", "checkpoint"]
)
"""Primitives that only call an inner program."""
# They read or make bits of a format: computed in it, and widened afterwards.
_OF_BITS = frozenset(["bitcast_convert_type", "nextafter"])

Operand: TypeAlias = Any


class Inner(NamedTuple):
    """The program that an equation calls."""

    jaxpr: core.Jaxpr
    consts: Sequence[Any]
    name: str
    """Of the function, "relu"; "" where it has none."""
    file: str
    """In which the function is written."""


class Evaluator:
    """Computes a program; a subclass may carry more than arrays. `wide`: all narrower floats in float64, under `jax.enable_x64`.

    What a program converts to a narrower format stays wide, and its constants are those of the format in which it was traced.
    """

    def __init__(self, *, wide: bool) -> None:
        self.wide = wide

    def run(self, jaxpr: core.Jaxpr, consts: Sequence[Operand], operands: Sequence[Operand]) -> list[Operand]:
        """Return the outputs of a program."""
        environment: dict[core.Var, Operand] = {}

        def read(atom: Any) -> Operand:
            return self.constant(atom.val, _dtype(atom)) if isinstance(atom, core.Literal) else environment[atom]

        environment.update(zip(jaxpr.constvars, consts, strict=True))
        environment.update(zip(jaxpr.invars, operands, strict=True))
        for eqn in jaxpr.eqns:
            inner = inner_program(eqn)
            values = [read(atom) for atom in eqn.invars]
            results = self.operation(eqn, values) if inner is None else self.call(eqn, inner, values)
            environment.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def constant(self, value: Any, dtype: Any) -> Operand:
        """Return a constant that stands in the program."""
        array = value if jax.numpy.issubdtype(dtype, jax.dtypes.extended) else np.asarray(value, dtype)
        return widened(array) if self.wide else array

    def operation(self, eqn: core.JaxprEqn, operands: Sequence[Operand]) -> list[Operand]:
        """Return what a primitive gives."""
        return computed(eqn, operands, wide=self.wide)

    def call(self, eqn: core.JaxprEqn, inner: Inner, operands: Sequence[Operand]) -> list[Operand]:  # noqa: ARG002  a subclass reads the equation
        """Return what an inner program gives."""
        consts = [self.constant(value, jax.numpy.asarray(value).dtype) for value in inner.consts]
        return self.run(inner.jaxpr, consts, operands)


def dtypes_of(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """Yield the dtypes of what all equations give, those of inner programs too."""
    for eqn in jaxpr.eqns:
        yield from (atom.aval.dtype for atom in eqn.outvars if hasattr(atom.aval, "dtype"))
        inner = inner_program(eqn)
        if inner is not None:
            yield from dtypes_of(inner.jaxpr)


def inner_program(eqn: core.JaxprEqn) -> Inner | None:
    """Return the program that an equation only calls; None for any other equation, as of control flow."""
    if eqn.primitive.name not in INLINED:
        return None
    program = eqn.params["call_jaxpr"] if "call_jaxpr" in eqn.params else eqn.params["jaxpr"]
    jaxpr, consts = (program.jaxpr, program.consts) if isinstance(program, core.ClosedJaxpr) else (program, ())
    name, _, place = str(getattr(jaxpr.debug_info, "func_src_info", "") or "").partition(" at ")
    return Inner(jaxpr, consts, str(eqn.params.get("name") or name), place)


def computed(eqn: core.JaxprEqn, operands: Sequence[Any], *, wide: bool) -> list[Any]:
    """Return what a primitive gives for arrays, or tracers."""
    params = eqn.params
    if wide:
        if eqn.primitive.name == "reduce_precision":
            return list(operands)
        if eqn.primitive.name in _OF_BITS:
            operands = [jax.numpy.asarray(each, _dtype(atom)) for each, atom in zip(operands, eqn.invars, strict=True)]
        else:
            params = {name: _wide_parameter(value) for name, value in params.items()}
            if "precision" in params:  # by which algorithm a product of narrower formats is computed
                params["precision"] = None
    with eqn.ctx.manager:
        result = eqn.primitive.bind(*operands, **params)
    results = list(result) if eqn.primitive.multiple_results else [result]
    return [widened(each) for each in results] if wide else results


def widened(array: Any) -> Any:
    """Return an array of narrower floats in float64; others as they are."""
    wanted = WIDE.get(str(getattr(array, "dtype", "")))
    return array if wanted is None else array.astype(wanted)


def _wide_parameter(value: Any) -> Any:
    """Return a parameter of a primitive, in which dtypes and inner programs are those of wide floats."""
    if isinstance(value, core.ClosedJaxpr):
        return _wide_program(value)
    if isinstance(value, core.Jaxpr):
        return _wide_program(core.ClosedJaxpr(value, ())).jaxpr
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return WIDE.get(np.dtype(value).name, value)
    if isinstance(value, tuple):
        parts = [_wide_parameter(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _wide_program(program: core.ClosedJaxpr) -> core.ClosedJaxpr:
    def function(*operands: Any) -> list[Any]:
        consts = [widened(np.asarray(value)) for value in program.consts]
        return Evaluator(wide=True).run(program.jaxpr, consts, operands)

    avals = [
        jax.ShapeDtypeStruct(each.shape, WIDE.get(str(each.dtype), each.dtype)) if hasattr(each, "dtype") else each
        for each in program.in_avals
    ]
    return jax.make_jaxpr(function)(*avals)


def _dtype(atom: Any) -> Any:
    return atom.aval.dtype
