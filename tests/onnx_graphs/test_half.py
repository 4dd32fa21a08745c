"""Gradients of 16-bit graphs whose numbers 16 bits cannot hold: counts above 65,504, tiny epsilons, steep and flat slopes.

Truth is torch's autograd in float64 at the very inputs. Each graph is evaluated by onnx's rules of rounding (the correctly rounded evaluator)
and, in float16, by ONNX Runtime; nothing may warn while it is made.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.oracle.rounding import round_to
from actconform.types.dtypes import DTYPES

torch = pytest.importorskip("torch")
functional = torch.nn.functional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

STORAGE: dict[str, Any] = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}
ELEMENTS = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
SPELLED = {"f16": "float16", "bf16": "bfloat16"}
UNITS = 3.0  # of half the last place: a gradient is rounded once, its forward value once before it


class Graph(NamedTuple):
    """A graph of x, and w where there is one, in text with T for the 16-bit type; what torch computes; the cotangent's size."""

    text: str
    inputs: Mapping[str, NDArray[Any]]
    truth: Callable[..., Any]
    g: float = 1024.0
    opset: int = 20
    units: float = UNITS
    fixed: bool = True  # whether the dimensions are known before it runs
    dtypes: tuple[str, ...] = ("f16", "bf16")


def single(
    node: str, x: Any, truth: Callable[..., Any], *more: Any, attributes: str = "", inputs: str = "x", **options: Any
) -> Graph:
    """Return the graph of one node."""
    arrays = {name: np.asarray(each) for name, each in zip(("x", "w", "v"), (x, *more), strict=False)}
    return Graph(f"y = {node}{f'<{attributes}>' if attributes else ''}({inputs})", arrays, truth, **options)


RNG = np.random.default_rng(5)
MANY = 70_000


def normal(*shape: int) -> NDArray[np.float64]:
    return RNG.standard_normal(shape)


def away(*shape: int, least: float = 0.25) -> NDArray[np.float64]:
    """Return numbers that are not near 0, where a product would leave the range of float16."""
    x = RNG.uniform(least, 1.0, shape)
    return x * RNG.choice([-1.0, 1.0], shape)


def attribute(value: float) -> float:
    """Return the float32 number that an attribute holds."""
    return float(np.float32(value))


def mse(x: Any, w: Any) -> Any:
    return ((x - w) ** 2).mean()


MSE = "d = Sub(x, w) q = Mul(d, d) y = ReduceMean<keepdims = 0>(q)"
IMAGE, TARGET = away(1, 3, 224, 224), 4.0 + away(1, 3, 224, 224)
LONG, ROWS = away(MANY), away(2, MANY)
SCORES, LABELS = away(MANY, 2), RNG.integers(0, 2, MANY)
FIELD = away(1, 2, 260, 256)


def ordinary(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    return (x - x.mean(axes, keepdim=True)) / (x.var(axes, unbiased=False, keepdim=True) + epsilon).sqrt()


def trained(x: Any, scale: Any, bias: Any) -> Any:
    return ordinary(x, (0, 2), attribute(1e-5)) * scale[:, None] + bias[:, None]


COUNTS = {
    "mean squared error of an image": Graph(MSE, {"x": IMAGE, "w": TARGET}, mse),
    "the same of free size": Graph(MSE, {"x": IMAGE, "w": TARGET}, mse, fixed=False),
    "mean absolute error": Graph(
        "d = Sub(x, w) q = Abs(d) y = ReduceMean<keepdims = 0>(q)",
        {"x": IMAGE, "w": TARGET},
        lambda x, w: (x - w).abs().mean(),
    ),
    "mean of all": single("ReduceMean", LONG, lambda x: x.mean(0, keepdim=True)),
    "mean of rows": single("ReduceMean", ROWS, lambda x: x.mean(1), attributes="axes = [1], keepdims = 0", opset=17),
    "mean of free rows": single("ReduceMean", ROWS, lambda x: x.mean(1, keepdim=True), attributes="axes = [-1]", opset=17, fixed=False),
    "mean of one element more than float16 counts": single("ReduceMean", away(65_520), lambda x: x.mean(0, keepdim=True)),
    "mean of a count that float16 rounds": single("ReduceMean", away(4_099), lambda x: x.mean(0, keepdim=True)),
    "global mean": single("GlobalAveragePool", FIELD, lambda x: x.mean((2, 3), keepdim=True)),
    "global mean of free size": single("GlobalAveragePool", FIELD, lambda x: x.mean((2, 3), keepdim=True), fixed=False),
    "mean of a large window": single(
        "AveragePool", away(1, 1, MANY), lambda x: functional.avg_pool1d(x, 66_000, 4000), attributes="kernel_shape = [66000], strides = [4000]"
    ),
    "mean of a large window, padded": single(
        "AveragePool",
        away(1, 1, 66_000),
        lambda x: functional.avg_pool1d(functional.pad(x, (3, 3)), 66_000, 3),
        attributes="kernel_shape = [66000], strides = [3], pads = [3, 3], count_include_pad = 1",
    ),
    "mean of a large window of free size": single(
        "AveragePool",
        away(1, 1, MANY),
        lambda x: functional.avg_pool1d(x, 66_000, 4000),
        attributes="kernel_shape = [66000], strides = [4000]",
        fixed=False,
    ),
    "mean of a square window": single(
        "AveragePool", away(1, 1, 257, 257), lambda x: functional.avg_pool2d(x, 257), attributes="kernel_shape = [257, 257]"
    ),
    "share of many maxima": single("ReduceMax", np.ones(MANY), lambda x: x.amax(0, keepdim=True)),
    "share of many minima": single("ReduceMin", np.ones((2, MANY)), lambda x: x.amin(1), attributes="axes = [1], keepdims = 0", opset=17),
    "share of 3,001 maxima": single("ReduceMax", np.ones(3_001), lambda x: x.amax(0, keepdim=True)),
    "sum of squares of many": single("ReduceSumSquare", LONG / 512, lambda x: (x * x).sum(0, keepdim=True)),
    "length of many": single("ReduceL2", LONG, lambda x: (x * x).sum(0, keepdim=True).sqrt()),
    "sum of sizes of many": single("ReduceL1", LONG / 512, lambda x: x.abs().sum(0, keepdim=True)),
    "logarithm of the sum of many": single("ReduceLogSum", np.abs(LONG), lambda x: x.sum(0, keepdim=True).log()),
    "logarithm of the sum of many exponentials": single("ReduceLogSumExp", LONG, lambda x: x.logsumexp(0, keepdim=True)),
    "softmax of many": single("Softmax", ROWS, lambda x: x.softmax(1), attributes="axis = 1", g=16384.0),
    "softmax of far scores": single("Softmax", np.array([[0.0, -3.0, -17.0]]), lambda x: x.softmax(1), attributes="axis = 1", g=16384.0),
    "log-softmax of many": single("LogSoftmax", ROWS, lambda x: x.log_softmax(1), attributes="axis = 1", g=0.25),
    "layer normalization of many": single(
        "LayerNormalization",
        ROWS,
        lambda x, w: functional.layer_norm(x, (MANY,), w, None, attribute(1e-5)),
        away(MANY),
        inputs="x, w",
        attributes="axis = 1",
        g=1.0,
    ),
    "root mean square normalization of many": single(
        "RMSNormalization",
        ROWS,
        lambda x, w: functional.rms_norm(x, (MANY,), w, attribute(1e-5)),
        away(MANY),
        inputs="x, w",
        opset=23,
        g=1.0,
    ),
    "instance normalization of an image": single(
        "InstanceNormalization",
        FIELD,
        lambda x, w, v: functional.instance_norm(x, None, None, w, v, eps=attribute(1e-5)),
        away(2),
        away(2),
        inputs="x, w, v",
        g=0.01,
    ),
    "group normalization of an image": single(
        "GroupNormalization",
        FIELD,
        lambda x, w, v: functional.group_norm(x, 1, w, v, attribute(1e-5)),
        away(2),
        away(2),
        inputs="x, w, v",
        attributes="num_groups = 1",
        opset=21,
        g=0.01,
    ),
    "batch normalization in training": Graph(
        "y, m, s = BatchNormalization<training_mode = 1>(x, w, v, v, v)",
        {"x": away(35_000, 2, 2), "w": away(2), "v": np.abs(away(2))},
        trained,
        g=0.01,
    ),
    "mean variance normalization": single(
        "MeanVarianceNormalization", FIELD, lambda x: ordinary(x, (0, 2, 3), 0.0), attributes="axes = [0, 2, 3]", g=1.0
    ),
    "norm of a large window": single("GlobalLpPool", FIELD, lambda x: (x.abs() ** 3).sum((2, 3), keepdim=True) ** (1 / 3), attributes="p = 3"),
    "cross-entropy of many": Graph(
        "y = SoftmaxCrossEntropyLoss(x, labels)", {"x": SCORES, "labels": LABELS}, functional.cross_entropy, g=8192.0
    ),
    "likelihood of many": Graph(
        "y = NegativeLogLikelihoodLoss(x, labels)", {"x": SCORES, "labels": LABELS}, functional.nll_loss, g=8192.0
    ),
    "variance of many": Graph(
        "m = ReduceMean(x) c = Sub(x, m) q = Mul(c, c) y = ReduceMean(q)",
        {"x": np.sign(LONG) * 2 + LONG},
        lambda x: ((x - x.mean()) ** 2).mean(0, keepdim=True),
        g=4096.0,
        units=2**6,  # the sum of 70,000 rounded cotangents of the centred ones flows back through their mean
    ),
    "slope of a shared PRelu": single("PRelu", ROWS, functional.prelu, np.array([0.25]), inputs="x, w", g=0.5),
    "scattered maxima": Graph(
        'y = ScatterElements<reduction = "max">(x, i, w)',
        {"x": np.ones(2), "i": np.zeros(MANY, np.int64), "w": np.ones(MANY)},
        lambda x, i, w: x.scatter_reduce(0, i, w, "amax"),
    ),
}  # fmt: skip

SMALL_ROWS = np.array([[1.0, 1.0, 1.0 + 2.0**-7], [0.5, 0.5, 0.5]])
SLOPES = np.array([-2.5, -1.0, -0.375, 0.5, 1.25, 3.0])


def gate(x: Any, alpha: float) -> Any:
    return x * torch.sigmoid(attribute(alpha) * x)


def selu(x: Any, alpha: float, gamma: float) -> Any:
    return attribute(gamma) * torch.where(x > 0, x, attribute(alpha) * torch.expm1(x))


def neighbours(x: Any, alpha: float, bias: float) -> Any:
    squares = functional.pad(x * x, (0, 0, 0, 0, 1, 1))
    near = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    return x * (attribute(bias) + attribute(alpha) / 3 * near) ** -0.75


NUMBERS = {
    **{
        f"layer normalization with epsilon {epsilon:g}": single(
            "LayerNormalization",
            SMALL_ROWS,
            lambda x, w, epsilon=epsilon: functional.layer_norm(x, (3,), w, None, attribute(epsilon)),
            np.array([1.0, 2.0, 0.5]),
            inputs="x, w",
            attributes=f"epsilon = {epsilon!r}",
            g=g,
        )
        for epsilon, g in ((1e-12, 2.0**-7), (1e-8, 2.0**-6), (1e-5, 0.25))
    },
    "root mean square normalization with epsilon 1e-12": single(
        "RMSNormalization",
        np.array([[2.0**-14, 2.0**-15, 2.0**-13]]),
        lambda x, w: functional.rms_norm(x, (3,), w, attribute(1e-12)),
        np.array([1.0, 2.0, 0.5]),
        inputs="x, w",
        attributes="epsilon = 1e-12",
        opset=23,
        g=2.0**-3,
    ),
    "batch normalization with epsilon 1e-10": single(
        "BatchNormalization",
        away(3, 2, 4),
        lambda x, w, v: (x - v[:, None]) / (v + attribute(1e-10)).sqrt()[:, None] * w[:, None] + v[:, None],
        np.array([1.0, 2.0]),
        np.array([2.0**-14, 2.0**-12]),
        inputs="x, w, v, v, v",
        attributes="epsilon = 1e-10",
        g=2.0**-14,
    ),
    "instance normalization with epsilon 1e-12": single(
        "InstanceNormalization",
        SMALL_ROWS[None],
        lambda x, w, v: functional.instance_norm(x, None, None, w, v, eps=attribute(1e-12)),
        np.array([1.0, 2.0]),
        np.array([0.5, 0.25]),
        inputs="x, w, v",
        attributes="epsilon = 1e-12",
        g=2.0**-8,
        dtypes=("f16",),
    ),
    "mean variance normalization of little": single(
        "MeanVarianceNormalization",
        2.0**-12 * away(1, 2, 2, 3),
        lambda x: (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True).sqrt() + 1e-9),
        attributes="axes = [0, 2, 3]",
        g=1.0,
    ),
    **{
        f"leaky relu of {alpha:g}": single(
            "LeakyRelu", SLOPES, lambda x, alpha=alpha: functional.leaky_relu(x, attribute(alpha)), attributes=f"alpha = {alpha!r}", g=g
        )
        for alpha, g in ((1e-6, 8192.0), (1e-9, 32768.0), (3e5, 2.0**-4))
    },
    **{
        f"elu of {alpha:g}": single(
            "Elu", SLOPES, lambda x, alpha=alpha: functional.elu(x, attribute(alpha)), attributes=f"alpha = {alpha!r}", g=g
        )
        for alpha, g in ((1e-7, 32768.0), (1e5, 2.0**-3))
    },
    "selu of 1e-3 and 1e-4": single(
        "Selu", SLOPES, lambda x: selu(x, 1e-3, 1e-4), attributes="alpha = 1e-3, gamma = 1e-4", g=32768.0
    ),
    "selu of 1e3 and 1e3": single(
        "Selu", SLOPES, lambda x: selu(x, 1e3, 1e3), attributes="alpha = 1e3, gamma = 1e3", g=2.0**-6
    ),
    "celu of 1e-7 and 1e5": Graph(
        "a = Cast<to = 1>(x) b = Celu<alpha = 1e5>(a) c = Celu<alpha = 1e-7>(a) d = Add(b, c) y = CastLike(d, x)",
        {"x": SLOPES},
        lambda x: functional.celu(x, 1e5) + functional.celu(x, attribute(1e-7)),
    ),
    "hard sigmoid of 1e-6": single(
        "HardSigmoid", SLOPES, lambda x: (attribute(1e-6) * x + 0.5).clamp(0, 1), attributes="alpha = 1e-6, beta = 0.5", g=8192.0
    ),
    "hard sigmoid of 1e5": single(
        "HardSigmoid", np.array([-1.0, 2.0**-20, 1.0]), lambda x: (1e5 * x + 0.5).clamp(0, 1), attributes="alpha = 1e5, beta = 0.5", g=0.25
    ),
    "thresholded relu of 1e5": single(
        "ThresholdedRelu", SLOPES * 1000, lambda x: torch.where(x > 1e5, x, 0.0 * x), attributes="alpha = 1e5"
    ),
    "thresholded relu of 1e-8": single(
        "ThresholdedRelu", np.array([0.0, 2.0**-24, -1.0]), lambda x: torch.where(x > 1e-8, x, 0.0 * x), attributes="alpha = 1e-8"
    ),
    "shrink of 1e5": single("Shrink", SLOPES * 1000, lambda x: 0.0 * x, attributes="lambd = 1e5", dtypes=("f16",)),
    "shrink of 1e-8": single(
        "Shrink", np.array([0.0, 2.0**-24, -1.0]), lambda x: functional.hardshrink(x, 1e-8), attributes="lambd = 1e-8", dtypes=("f16",)
    ),
    **{
        f"swish of {alpha:g}": single(
            "Swish", x, lambda x, alpha=alpha: gate(x, alpha), attributes=f"alpha = {alpha!r}", opset=24
        )
        for alpha, x in ((1e5, np.array([-(2.0**-16), 2.0**-17, 2.0**-15])), (1e-6, SLOPES))
    },
    "response normalization of 1e-6 and 1e-3": single(
        "LRN", 16 * away(2, 3, 4, 2), lambda x: neighbours(x, 1e-6, 1e-3), attributes="size = 3, alpha = 1e-6, bias = 1e-3", g=1.0
    ),
    "response normalization of 1e5": single(
        "LRN", away(2, 3, 4, 2), lambda x: neighbours(x, 1e5, 1.0), attributes="size = 3, alpha = 1e5", g=8192.0
    ),
    "gemm with 1e-7": single(
        "Gemm",
        away(3, 4),
        lambda x, w, v: attribute(1e-7) * (x @ w) + attribute(2e-7) * v,
        away(4, 2),
        away(2),
        inputs="x, w, v",
        attributes="alpha = 1e-7, beta = 2e-7",
        g=32768.0,
    ),
    "gemm with 1e5": single(
        "Gemm",
        away(3, 4),
        lambda x, w, v: 1e5 * (x @ w) + 2e5 * v,
        away(4, 2),
        away(2),
        inputs="x, w, v",
        attributes="alpha = 1e5, beta = 2e5",
        g=2.0**-6,
    ),
    "power of 2^-16": single("Pow", np.abs(away(5)), lambda x, w: x**w, np.array(2.0**-16), inputs="x, w", g=8192.0),
    "power of 12": single("Pow", np.abs(SLOPES) / 4, lambda x, w: x**w, np.array(12.0), inputs="x, w"),
    "power of large numbers": single("Pow", np.array([60.0, 90.0]), lambda x, w: x**w, np.array([2.0, 1.5]), inputs="x, w", g=2.0**-10),
    "quotient by 2e5 in float32": Graph(
        "a = Cast<to = 1>(x) n = Constant<value_float = 2e5>() b = Div(a, n) y = CastLike(b, x)",
        {"x": SLOPES},
        lambda x: x / 2e5,
        g=8192.0,
    ),
    "window of cubes": single(
        "LpPool",
        away(1, 2, 5, 6),
        lambda x: functional.lp_pool2d(x.abs(), 3, 2, 1),
        attributes="kernel_shape = [2, 2], p = 3",
        opset=22,
    ),
    "rows by their norm": single(
        "LpNormalization", 512 * away(2, 4), lambda x: x / (x * x).sum(1, keepdim=True).sqrt(), attributes="axis = 1", g=8192.0, opset=22
    ),
    "linear resize": Graph(
        's = Constant<value_floats = [1.0, 1.0, 3.0, 2.5]>() y = Resize<mode = "linear">(x, , s)',
        {"x": away(1, 1, 3, 4)},
        lambda x: functional.interpolate(x, scale_factor=(3.0, 2.5), mode="bilinear"),
    ),
}  # fmt: skip


def far(*values: float) -> NDArray[np.float64]:
    return np.array(values)


UNARY = {
    "Exp": (far(-11.0, 0.5, 3.5), torch.exp, 1024.0),
    "Sqrt": (far(3e-6, 60000.0), torch.sqrt, 64.0),
    "Reciprocal": (far(-5000.0, 300.0, 20000.0), torch.reciprocal, 32768.0),
    "Log": (far(6e-6, 50000.0), torch.log, 0.25),
    "Tan": (far(1.5625, 0.1), torch.tan, 1.0),
    "Asin": (far(0.984375, 0.5), torch.asin, 64.0),
    "Acos": (far(-0.984375, 0.5), torch.acos, 64.0),
    "Atan": (far(1000.0, -400.0, 0.5), torch.atan, 8192.0),
    "Sinh": (far(11.0, -3.0), torch.sinh, 0.5),
    "Cosh": (far(11.0, -3.0), torch.cosh, 0.5),
    "Asinh": (far(5000.0, 0.5), torch.asinh, 1024.0),
    "Acosh": (far(1.0078125, 3000.0), torch.acosh, 64.0),
    "Atanh": (far(0.984375, -0.5), torch.atanh, 64.0),
    "Erf": (far(-3.4, 3.25, 0.5), torch.erf, 8192.0),
    "Sigmoid": (far(-15.0, 14.0, 0.5), torch.sigmoid, 32768.0),
    "Tanh": (far(-7.0, 6.5, 0.5), torch.tanh, 32768.0),
    "Softplus": (far(-15.0, 2.0), functional.softplus, 32768.0),
    "Softsign": (far(500.0, -3000.0, 0.5), functional.softsign, 32768.0),
    "Mish": (far(-12.0, 0.5), functional.mish, 8192.0),
    "Gelu": (far(-4.5, -4.0, 0.5), functional.gelu, 8192.0),
    "HardSwish": (far(-2.5, 1.0, 5.0), functional.hardswish, 1024.0),
    "Abs": (far(-2.5, 5.0), torch.abs, 1024.0),
}
TABLE = {
    **COUNTS,
    **NUMBERS,
    **{f"{name} far out": single(name, x, truth, g=g) for name, (x, truth, g) in UNARY.items()},
    "square of a small number by a large cotangent": single("Mul", far(0.0009765625, 0.125), lambda x: x * x, inputs="x, x", g=40000.0),
    "products that are summed": single(
        "Mul", 96 * away(3, 4), lambda x, w: x * w, away(4), inputs="x, w", g=256.0
    ),
    "quotients that are summed": single("Div", 96 * away(3, 4), lambda x, w: x / w, 4 * away(4), inputs="x, w", g=512.0),
    "quotient by a large number": single("Div", far(2.0, 60000.0), lambda x, w: x / w, far(3000.0, 50000.0), inputs="x, w", g=32768.0),
    "mean of three": single("Mean", SLOPES, lambda x, w, v: (x + w + v) / 3, SLOPES, SLOPES, inputs="x, w, v"),
}  # fmt: skip


def model_of(graph: Graph, dtype: str) -> onnx.ModelProto:
    inputs = []
    for name, array in graph.inputs.items():
        of = "int64" if array.dtype.kind == "i" else SPELLED[dtype]
        if not array.ndim:
            inputs.append(f"{of} {name}")
            continue
        dims = array.shape if graph.fixed else [f"{name}{i}" if n > 1 else n for i, n in enumerate(array.shape)]
        inputs.append(f"{of}[{','.join(map(str, dims))}] {name}")
    text = f'<ir_version: 10, opset_import: ["": {graph.opset}]> g ({", ".join(inputs)}) => ({SPELLED[dtype]} y) {{ {graph.text} }}'
    model = parser.parse_model(text)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shape = next(iter(inferred.graph.output))
    rank = len(_truth(graph, {name: torch.tensor(array) for name, array in graph.inputs.items()}).shape)
    if not shape.type.tensor_type.HasField("shape") or len(shape.type.tensor_type.shape.dim) != rank:
        shape.CopyFrom(helper.make_tensor_value_info("y", ELEMENTS[dtype], [None] * rank))
    model.graph.output[0].CopyFrom(shape)
    return model


def _truth(graph: Graph, tensors: dict[str, Any]) -> Any:
    return graph.truth(*tensors.values())


def rounded(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    return round_to(array.astype(np.float64), DTYPES[dtype]) if array.dtype.kind == "f" else array


def answers(graph: Graph, dtype: str, runtime: Callable[[bytes, Arrays], Arrays]) -> tuple[Arrays, Arrays]:
    """Return the gradients of a graph, and the true ones."""
    exact = {name: rounded(array, dtype) for name, array in graph.inputs.items()}
    floats = [name for name, array in exact.items() if array.dtype.kind == "f"]
    tensors = {name: torch.tensor(array, requires_grad=name in floats) for name, array in exact.items()}
    y = _truth(graph, tensors)
    g = rounded(graph.g * np.random.default_rng(1).uniform(-1.25, 1.25, tuple(y.shape)), dtype)
    truths = torch.autograd.grad(y, [tensors[name] for name in floats], torch.tensor(g), allow_unused=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = add_gradients(model_of(graph, dtype), floats, keep_outputs=False).SerializeToString()
    given = {name: array.astype(STORAGE[dtype]) if name in floats else array for name, array in exact.items()}
    got = runtime(model, given | {"ct_y": g.astype(STORAGE[dtype])})
    return got, {f"d_{name}": truth.numpy() for name, truth in zip(floats, truths, strict=True) if truth is not None}


def assert_close(got: Arrays, truth: Arrays, units: float, dtype: str) -> None:
    form = DTYPES[dtype]
    for name, wanted in truth.items():
        assert got[name].shape == wanted.shape
        assert got[name].dtype == STORAGE[dtype]
        error = np.abs(got[name].astype(np.float64) - wanted)
        assert np.isfinite(wanted).all()
        assert np.abs(wanted).max() < form.largest, "the case is to stay within the format"
        allowed = units * form.unit_roundoff * np.maximum(np.abs(wanted), form.smallest_normal)
        # what cancels in float32, in sums of as many terms in any order: below a rounding of 16 bits of the largest
        allowed += max(2.0**-18, 2.0**-21 * np.sqrt(wanted.size)) * np.abs(wanted).max()
        worst = np.unravel_index(np.argmax(error / allowed), error.shape)
        assert (error <= allowed).all(), f"{name}{list(worst)}: {got[name][worst]} for {wanted[worst]}"


def evaluated(model: bytes, inputs: Arrays) -> Arrays:
    return CorrectlyRoundedEvaluator(model).forward(inputs)


def test_there_are_sixty_graphs_at_least() -> None:
    assert len(TABLE) >= 60


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dtype", STORAGE)
def test_gradients_of_sixteen_bit_graphs_are_those_of_float64_rounded(name: str, dtype: str) -> None:
    graph = TABLE[name]
    if dtype in graph.dtypes:
        assert_close(*answers(graph, dtype, evaluated), graph.units, dtype)


def in_onnx_runtime(model: bytes, inputs: Arrays) -> Arrays:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, inputs), strict=True))


@pytest.mark.parametrize("name", TABLE)
def test_they_are_so_in_onnx_runtime(name: str) -> None:
    graph = TABLE[name]
    assert_close(*answers(graph, "f16", in_onnx_runtime), 2 * graph.units, "f16")


def test_dropout_that_keeps_one_of_ten_thousand_scales_by_ten_thousand() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]> g (float16[200000] x) => (float16[200000] y, bool[200000] mask)
        <float r = {0.9999}, bool t = {1}> { y, mask = Dropout<seed = 3>(x, r, t) }"""
    model = add_gradients(parser.parse_model(text), ["x"], ["y"])
    ones = np.ones(200_000, np.float16)
    got = in_onnx_runtime(model.SerializeToString(), {"x": ones, "ct_y": ones / np.float16(8)})
    assert 0 < got["mask"].sum() < 100
    kept = got["d_x"][got["mask"]].astype(np.float64)
    np.testing.assert_allclose(kept, 0.125 / (1 - attribute(0.9999)), rtol=1e-3)
    assert not got["d_x"][~got["mask"]].any()
