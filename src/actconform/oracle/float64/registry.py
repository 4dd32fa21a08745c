"""Which float64 formula serves which unary kernel: values and derivatives, without cancellation, at the speed of NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import NamedTuple, TypeAlias

import numpy as np

from actconform.oracle.float64 import piecewise, smooth
from actconform.oracle.rounding import F64

Function: TypeAlias = Callable[[F64, Mapping[str, float]], F64]


class KernelFormula(NamedTuple):
    """`value(x, kernel.parameters)` is f(x), `derivative` likewise f'(x): elementwise, any shape, float64 in and out.

    x holds float32 numbers (so also float16 and bfloat16 ones), and so do the parameters. NaN gives NaN, +-inf the limit, and
    f(+-0) = +-0 where f passes through zero with a slope. At a kink the derivative is the one of the right side, or of the
    side on which the definition puts the point. x is never changed and no warning is given.
    """

    value: Function
    derivative: Function


FORMULAS: dict[str, KernelFormula] = {}

# Intermediate arrays of this size stay in the cache and are recycled by the allocator: several times faster than larger ones.
BLOCK = 1 << 14


def formula(*names: str, derivative: Function) -> Callable[[Function], Function]:
    """Register the decorated value, and its `derivative`, as the float64 truth of the kernels with these names.

        @formula("cube", derivative=lambda x, parameters: 3 * x**2)
        def cube(x, parameters):
            return x**3

    Both are called with blocks of at most 16,384 numbers in one dimension, and their warnings are silenced.
    Raises ValueError where a name has a formula already.
    """

    def register(value: Function) -> Function:
        for name in names:
            if name in FORMULAS:
                message = f"kernel {name} has a formula already: give the new one a name of its own"
                raise ValueError(message)
            FORMULAS[name] = KernelFormula(_in_blocks(value), _in_blocks(derivative))
        return value

    return register


def _in_blocks(function: Function) -> Function:
    @wraps(function)
    def evaluate(x: F64, parameters: Mapping[str, float]) -> F64:
        result = np.empty(np.shape(x))
        flat_x, flat_result = np.ravel(x), result.reshape(-1)
        with np.errstate(all="ignore"):
            for start in range(0, flat_x.size, BLOCK):
                flat_result[start : start + BLOCK] = function(flat_x[start : start + BLOCK], parameters)
        return result

    return evaluate


formula("linear", derivative=piecewise.linear_derivative)(piecewise.linear)
formula("relu", derivative=piecewise.relu_derivative)(piecewise.relu)
formula(
    *("leaky-relu", "leaky-relu-0.2", "leaky-relu-0.3", "leaky-relu-default"),
    derivative=piecewise.leaky_derivative,
)(piecewise.leaky)
formula("hard-sigmoid-onnx", "hard-sigmoid-default", derivative=piecewise.hard_sigmoid_derivative)(
    piecewise.hard_sigmoid
)
formula("hard-sigmoid-relu6", derivative=piecewise.hard_sigmoid_relu6_derivative)(piecewise.hard_sigmoid_relu6)
formula("hard-swish", derivative=piecewise.hard_swish_derivative)(piecewise.hard_swish)
formula("hard-tanh", derivative=piecewise.hard_tanh_derivative)(piecewise.hard_tanh)
formula("relu6", derivative=piecewise.relu6_derivative)(piecewise.relu6)
formula("relu-squared", derivative=piecewise.relu_squared_derivative)(piecewise.relu_squared)
formula("thresholded-relu", derivative=piecewise.thresholded_relu_derivative)(piecewise.thresholded_relu)
formula("threshold", derivative=piecewise.threshold_derivative)(piecewise.threshold)
formula("hard-shrink", derivative=piecewise.shrink_derivative)(piecewise.hard_shrink)
formula("soft-shrink", derivative=piecewise.shrink_derivative)(piecewise.soft_shrink)
formula("sparse-plus", derivative=piecewise.sparse_sigmoid)(piecewise.sparse_plus)
formula("sparse-sigmoid", derivative=piecewise.sparse_sigmoid_derivative)(piecewise.sparse_sigmoid)

formula("sigmoid", derivative=smooth.sigmoid_derivative)(smooth.sigmoid)
formula("log-sigmoid", derivative=smooth.log_sigmoid_derivative)(smooth.log_sigmoid)
formula("softplus", "softplus-beta", derivative=smooth.softplus_derivative)(smooth.softplus)
formula("tanh", derivative=smooth.tanh_derivative)(smooth.tanh)
formula("tanh-shrink", derivative=smooth.tanh_shrink_derivative)(smooth.tanh_shrink)
formula("softsign", derivative=smooth.softsign_derivative)(smooth.softsign)
formula("elu", "elu-half", derivative=smooth.elu_derivative)(smooth.elu)
formula("selu", derivative=smooth.selu_derivative)(smooth.selu)
formula("celu", derivative=smooth.celu_derivative)(smooth.celu)
formula("exponential", derivative=smooth.exponential)(smooth.exponential)
formula("squareplus", derivative=smooth.squareplus_derivative)(smooth.squareplus)
formula("gelu-erf", "gelu-default", derivative=smooth.gelu_erf_derivative)(smooth.gelu_erf)
formula("gelu-tanh", derivative=smooth.gelu_tanh_derivative)(smooth.gelu_tanh)
formula("silu", "swish", "quick-gelu", derivative=smooth.swish_derivative)(smooth.swish)
formula("mish", derivative=smooth.mish_derivative)(smooth.mish)
