"""The primitives that activations are computed with: their true values, and the operator of ONNX that computes each."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Callable

F64: TypeAlias = NDArray[np.float64]

ROOT_HALF = float(np.sqrt(0.5))


class Primitive(msgspec.Struct, frozen=True):
    """A function of `operands` numbers by its float64 formula, which is good to 2**-48 of the result.

    `operator` is the ONNX operator of one node that computes it, empty where there is none. First operands outside `domain`, and other
    dtypes than `dtypes`, are not measured.
    """

    name: str
    truth: Callable[..., F64]
    operator: str = ""
    operands: int = 1
    domain: tuple[float, float] = (-np.inf, np.inf)
    dtypes: tuple[str, ...] = ("f32", "f16", "bf16")


def _softplus(x: F64) -> F64:
    result: F64 = np.logaddexp(0.0, x)
    return result


def _erf_of_gelu(x: F64) -> F64:
    result: F64 = special.erf(x * ROOT_HALF)
    return result


def _rsqrt(x: F64) -> F64:
    result: F64 = 1.0 / np.sqrt(x)
    return result


PRIMITIVES = {
    primitive.name: primitive
    for primitive in (
        Primitive("exp", np.exp, "Exp"),
        Primitive("expm1", np.expm1),
        Primitive("log", np.log, "Log"),
        Primitive("log1p", np.log1p),
        Primitive("tanh", np.tanh, "Tanh"),
        Primitive("sigmoid", special.expit, "Sigmoid"),
        Primitive("erf", special.erf, "Erf"),
        Primitive("erfc", special.erfc),
        # erf as a fused gelu uses it, of the gelu's own argument: 2 gelu(x) / x - 1. On the left gelu's roundings are least.
        Primitive("erf_gelu", _erf_of_gelu, domain=(-(2.0**10), -(2.0**-10)), dtypes=("f32",)),
        Primitive("softplus", _softplus, "Softplus"),
        Primitive("sqrt", np.sqrt, "Sqrt"),
        Primitive("rsqrt", _rsqrt),
        Primitive("reciprocal", np.reciprocal, "Reciprocal"),
        Primitive("division", np.divide, "Div", operands=2),
    )
}
