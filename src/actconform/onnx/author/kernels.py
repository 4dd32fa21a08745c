"""The graphs of the built-in kernels.

A kernel is one node wherever the standard has an operator that computes it, and else the composition as which its
definition reads, in the graph's dtype throughout. Three are chosen against overflow and cancellation: log-sigmoid
is -softplus(-x), never log(sigmoid(x)), which is -inf below -104; softplus-beta adds max(x, 0) last; sparsemax shifts
each row by its maximum first.
Comparisons are written so that NaN falls through to x: NaN in, NaN out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from actconform.onnx.nodes import Nodes, graph

if TYPE_CHECKING:
    from actconform.types import Kernel


def operator(op_type: str, *names: str, **attributes: Any) -> None:
    """Register kernels that are one node over x; an attribute given as "$name" takes that parameter of the kernel.

    A kernel that shows an operator's defaults gets the node without attributes.
    """

    def write(g: Nodes, kernel: Kernel) -> str:
        return g.outputs(1, op_type, "x", **({} if kernel.defaults_only else _filled(attributes, kernel)))[0]

    graph(*names)(write)


def _filled(attributes: dict[str, Any], kernel: Kernel) -> dict[str, Any]:
    parameter = kernel.parameters
    return {k: parameter[v[1:]] if isinstance(v, str) and v.startswith("$") else v for k, v in attributes.items()}


operator("Identity", "linear")
operator("Sigmoid", "sigmoid")
operator("Tanh", "tanh")
operator("Relu", "relu")
operator("LeakyRelu", "leaky-relu", "leaky-relu-0.2", "leaky-relu-0.3", "leaky-relu-default", alpha="$alpha")
operator("Elu", "elu", alpha=1.0)
operator("Elu", "elu-half", alpha="$alpha")
operator("Selu", "selu")  # its defaults are the float32 roundings of the definition's two constants
operator("Softsign", "softsign")
operator("Gelu", "gelu-erf", "gelu-default", approximate="none")
operator("Gelu", "gelu-tanh", approximate="tanh")
operator("Swish", "silu", alpha=1.0)
operator("Swish", "swish", alpha="$beta")
operator("Swish", "quick-gelu", alpha="$alpha")
operator("Mish", "mish")
operator("Softplus", "softplus")
operator("HardSigmoid", "hard-sigmoid-onnx", "hard-sigmoid-default", alpha="$alpha", beta="$beta")
operator("HardSigmoid", "sparse-sigmoid", alpha=0.5, beta=0.5)
operator("HardSwish", "hard-swish")
operator("ThresholdedRelu", "thresholded-relu", alpha="$alpha")
operator("Exp", "exponential")
operator("Softmax", "softmax", axis=-1)
operator("Softmax", "softmax-axis1", axis=1)
operator("LogSoftmax", "log-softmax", axis=-1)
operator("LogSoftmax", "log-softmax-axis1", axis=1)
operator("Hardmax", "hardmax", axis=-1)
operator("ArgMax", "argmax", axis=-1, keepdims=0, select_last_index=0)


@graph("celu")
def _celu(g: Nodes, kernel: Kernel) -> str:
    """Celu, defined for float32 alone; in 16 bits the body that the standard gives it: alpha elu(x / alpha)."""
    if g.takes_dtype("Celu"):
        return g.Celu("x", alpha=kernel.parameters["alpha"])
    alpha = g.scalar(kernel.parameters["alpha"])
    return g.Mul(alpha, g.Elu(g.Div("x", alpha), alpha=1.0))


@graph("hard-shrink", "soft-shrink")
def _shrink(g: Nodes, kernel: Kernel) -> str:
    """Shrink, not defined for bfloat16: there a choice between +0 and x moved towards zero by the bias."""
    threshold = kernel.parameters["lambda"]
    soft = kernel.name == "soft-shrink"
    if g.takes_dtype("Shrink"):
        return g.Shrink("x", lambd=threshold, bias=threshold if soft else 0.0)
    bound = g.scalar(threshold)
    outside = g.Sub("x", g.Mul(g.Sign("x"), bound)) if soft else "x"
    return g.Where(g.LessOrEqual(g.Abs("x"), bound), g.scalar(0.0), outside)


@graph("softplus-beta")
def _softplus_beta(g: Nodes, kernel: Kernel) -> str:
    """max(x, 0) + softplus(-beta |x|) / beta: as written in the definition beta x would overflow before x does."""
    beta = g.scalar(kernel.parameters["beta"])
    decay = g.Softplus(g.Neg(g.Mul(g.Abs("x"), beta)))
    return g.Add(g.Max("x", g.scalar(0.0)), g.Div(decay, beta))


@graph("log-sigmoid")
def _log_sigmoid(g: Nodes, _: Kernel) -> str:
    return g.Neg(g.Softplus(g.Neg("x")))


@graph("hard-sigmoid-relu6")
def _hard_sigmoid_relu6(g: Nodes, _: Kernel) -> str:
    """relu6(x + 3) / 6 as it reads: HardSigmoid would need alpha 1/6, which no float32 is, and be far off near -3."""
    return g.Div(g.Clip(g.Add("x", g.scalar(3.0)), g.scalar(0.0), g.scalar(6.0)), g.scalar(6.0))


@graph("hard-tanh")
def _hard_tanh(g: Nodes, _: Kernel) -> str:
    return g.Clip("x", g.scalar(-1.0), g.scalar(1.0))


@graph("relu6")
def _relu6(g: Nodes, _: Kernel) -> str:
    return g.Clip("x", g.scalar(0.0), g.scalar(6.0))


@graph("relu-squared")
def _relu_squared(g: Nodes, _: Kernel) -> str:
    relu = g.Relu("x")
    return g.Mul(relu, relu)


@graph("threshold")
def _threshold(g: Nodes, kernel: Kernel) -> str:
    below = g.LessOrEqual("x", g.scalar(kernel.parameters["threshold"]))
    return g.Where(below, g.scalar(kernel.parameters["default"]), "x")


@graph("tanh-shrink")
def _tanh_shrink(g: Nodes, _: Kernel) -> str:
    return g.Sub("x", g.Tanh("x"))


@graph("squareplus")
def _squareplus(g: Nodes, kernel: Kernel) -> str:
    root = g.Sqrt(g.Add(g.Mul("x", "x"), g.scalar(kernel.parameters["b"])))
    return g.Div(g.Add("x", root), g.scalar(2.0))


@graph("sparse-plus")
def _sparse_plus(g: Nodes, _: Kernel) -> str:
    above = g.Add("x", g.scalar(1.0))
    square = g.Mul(g.scalar(0.25), g.Mul(above, above))
    inner = g.Where(g.Less("x", g.scalar(1.0)), square, "x")
    return g.Where(g.LessOrEqual("x", g.scalar(-1.0)), g.scalar(0.0), inner)


@graph("prelu")
def _prelu(g: Nodes, _: Kernel) -> str:
    return g.PRelu("x", "slope")


@graph("softmin")
def _softmin(g: Nodes, _: Kernel) -> str:
    return g.Softmax(g.Neg("x"), axis=-1)


@graph("max")
def _maximum(g: Nodes, _: Kernel) -> str:
    return g.ReduceMax("x", g.integers(-1), keepdims=0)


@graph("maxout")
def _maxout(g: Nodes, kernel: Kernel) -> str:
    """Rows of width 2n read as (n, 2); in the new shape 0 keeps the rows and -1 stands for n."""
    pieces = g.Reshape("x", g.integers(0, -1, int(kernel.parameters["pieces"])))
    return g.ReduceMax(pieces, g.integers(-1), keepdims=0)


@graph("glu", "reglu", "swiglu", "geglu")
def _gated(g: Nodes, kernel: Kernel) -> str:
    a, b = g.outputs(2, "Split", "x", axis=-1, num_outputs=2)
    match kernel.name:
        case "glu":
            return g.Mul(a, g.Sigmoid(b))
        case "reglu":
            return g.Mul(g.Relu(a), b)
        case "swiglu":
            return g.Mul(g.Swish(a, alpha=1.0), b)
        case _:
            return g.Mul(g.Gelu(a, approximate="none"), b)


@graph("sparsemax")
def _sparsemax(g: Nodes, _: Kernel) -> str:
    """max(0, z - tau): with z sorted downwards, k is the last index with 1 + k z_k > z_1 + ... + z_k, and
    tau = (z_1 + ... + z_k - 1) / k (Martins and Astudillo 2016, algorithm 1).
    """
    last, one, unit = g.integers(-1), g.integer(1), g.scalar(1.0)
    z = g.Sub("x", g.ReduceMax("x", last, keepdims=1))
    width = g.Shape("x", start=-1)
    descending, _order = g.outputs(2, "TopK", z, width, axis=-1, largest=1, sorted=1)
    sums = g.CumSum(descending, g.integer(-1))
    ranks = g.Cast(g.Range(one, g.Add(g.Squeeze(width), one), one), to=g.element_type)
    supported = g.Greater(g.Add(unit, g.Mul(ranks, descending)), sums)
    k = g.ReduceSum(g.Cast(supported, to=TensorProto.INT64), last, keepdims=1)
    tau = g.Div(g.Sub(g.GatherElements(sums, g.Sub(k, one), axis=1), unit), g.Cast(k, to=g.element_type))
    return g.Relu(g.Sub(z, tau))
