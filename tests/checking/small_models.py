"""Small models of the kinds that users have, and a check of them on one runtime or several, in this process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, numpy_helper, parser, save

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.model_check import check_model
from actconform.checking.result import SampleFacts
from actconform.checking.source import read_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.checking.result import CheckResult
    from actconform.checking.runs import RuntimeRuns

    Arrays = Mapping[str, Any]

IR, OPSET = 8, 17


def numbers(seed: int, *shape: int, scale: float = 1.0) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def made(text: str, constants: Arrays | None = None, opset: int = OPSET, more: str = "") -> ModelProto:
    """Return a model: `text` is "(inputs) => (outputs) { nodes }", `constants` are its initializers, `more` functions."""
    domains = {"local": bool(more), "com.microsoft": "com.microsoft" in text, "ai.onnx.ml": "ai.onnx.ml" in text}
    imports = ", ".join([f'"" : {opset}', *(f'"{name}" : 1' for name, used in domains.items() if used)])
    model = parser.parse_model(f"<ir_version: {IR}, opset_import: [{imports}]>\ng {text}\n{more}")
    for name, array in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


CONV = made(
    """(float[n, 3, 12, 12] x) => (float[n, 5] y)
    {
        c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, c_w, c_b)
        b = BatchNormalization (c, scale, shift, mean, variance)
        r = Relu (b)
        p = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (r)
        z = Resize <mode = "nearest", nearest_mode = "floor", coordinate_transformation_mode = "asymmetric"> (p, , doubled)
        h = HardSigmoid <alpha = 0.2> (z)
        q = Clip (z, zero, half)
        m = Mul (h, q)
        s = Sigmoid (m)
        e = Pad (s, sides)
        g = GlobalAveragePool (e)
        f = Flatten (g)
        y = Gemm (f, g_w, g_b)
    }""",
    {
        "c_w": numbers(1, 8, 3, 3, 3, scale=0.3),
        "c_b": numbers(2, 8),
        "scale": 1 + numbers(3, 8, scale=0.1),
        "shift": numbers(4, 8),
        "mean": numbers(5, 8, scale=0.1),
        "variance": np.abs(numbers(6, 8)) + np.float32(0.1),
        "doubled": np.float32([1, 1, 2, 2]),
        "zero": np.float32(0),
        "half": np.float32(0.5),
        "sides": np.int64([0, 0, 1, 0, 0, 0, 0, 2]),
        "g_w": numbers(7, 8, 5),
        "g_b": numbers(8, 5),
    },
)
IMAGES = {"x": numbers(10, 2, 3, 12, 12)}

ENCODER = made(
    """(float[n, 8] x) => (float[n, 4] y)
    {
        p = MatMul (x, w)
        a = Add (p, bias)
        mean = ReduceMean <axes = [-1]> (a)
        centered = Sub (a, mean)
        square = Mul (centered, centered)
        variance = ReduceMean <axes = [-1]> (square)
        shifted = Add (variance, epsilon)
        deviation = Sqrt (shifted)
        normal = Div (centered, deviation)
        scaled = Mul (normal, scale)
        argument = Div (scaled, root)
        e = Erf (argument)
        one_more = Add (e, one)
        half = Mul (scaled, one_more)
        gelu = Mul (half, a_half)
        l = LayerNormalization <axis = -1> (gelu, scale, shift)
        t = Tanh (l)
        out = Gemm (t, o_w, o_b)
        y = Softmax <axis = -1> (out)
    }""",
    {
        "w": numbers(1, 8, 8),
        "bias": numbers(2, 8),
        "epsilon": np.float32([1e-5]),
        "root": np.float32(np.sqrt(2)),
        "one": np.float32(1),
        "a_half": np.float32(0.5),
        "scale": 1 + numbers(3, 8, scale=0.1),
        "shift": numbers(4, 8),
        "o_w": numbers(5, 8, 4),
        "o_b": numbers(6, 4),
    },
)
TOKENS = {"x": numbers(11, 6, 8)}

LSTM = made(
    """(float[steps, 1, 3] x) => (float[steps, 1] y)
    {
        states, last, cell = LSTM <hidden_size = 4> (x, w, r, b)
        flat = Reshape (states, shape)
        out = MatMul (flat, o_w)
        y = Sigmoid (out)
    }""",
    {
        "w": numbers(1, 1, 16, 3),
        "r": numbers(2, 1, 16, 4),
        "b": numbers(3, 1, 32),
        "shape": np.int64([-1, 4]),
        "o_w": numbers(4, 4, 1),
    },
)
STEPS = {"x": numbers(12, 5, 1, 3)}

QUANTIZED = made(
    """(float[n, 8] x) => (float[n, 4] y)
    {
        q = QuantizeLinear (x, x_scale, x_zero)
        d = DequantizeLinear (q, x_scale, x_zero)
        a = Abs (d)
        u, u_scale, u_zero = DynamicQuantizeLinear (a)
        i = MatMulInteger (u, w, u_zero, w_zero)
        f = Cast <to = 1> (i)
        s = Mul (f, u_scale)
        y = Mul (s, w_scale)
    }""",
    {
        "x_scale": np.float32(0.03),
        "x_zero": np.uint8(120),
        "w": np.random.default_rng(1).integers(0, 60, (8, 4)).astype(np.uint8),
        "w_zero": np.uint8(30),
        "w_scale": np.float32(0.01),
    },
)

OVERFLOWING = made(
    "(float16[4] x) => (float16[4] y) { s = Mul (x, x)  r = Sqrt (s)  y = Mul (r, tiny) }", {"tiny": np.float16(0.001)}
)

FLOW = made(
    """(float[4] x, float[5, 4] rows, bool early, int64 rounds) => (float[4] y, float[m, 4] collected, float[5, 4] sums)
    {
        doubled = Mul (x, two)
        chosen = If (early) <
            then_branch = g () => (float[4] inner) { t = Tanh (doubled)  inner = Mul (t, two) },
            else_branch = g () => (float[4] inner) { t = Sigmoid (doubled)  inner = Exp (t) }
        >
        state, collected = Loop (rounds, , chosen) <
            body = g (int64 i, bool go, float[4] s) => (bool on, float[4] next, float[4] shown)
            { on = Identity (go)  t = Mul (s, doubled)  next = Tanh (t)  shown = Exp (next) }
        >
        last, sums = Scan <num_scan_inputs = 1, body = g (float[4] s, float[4] row) => (float[4] next, float[4] shown)
            { t = Mul (s, row)  next = Add (t, row)  shown = Sigmoid (next) }
        > (state, rows)
        y = Mul (last, two)
    }""",
    {"two": np.float32(2)},
)


def flow(*, early: bool = True, rounds: int = 3) -> dict[str, Any]:
    return {
        "x": numbers(13, 4),
        "rows": numbers(14, 5, 4),
        "early": np.array(early),
        "rounds": np.array(rounds, np.int64),
    }


MODELS: dict[str, tuple[ModelProto, dict[str, Any]]] = {
    "conv": (CONV, IMAGES),
    "encoder": (ENCODER, TOKENS),
    "lstm": (LSTM, STEPS),
    "quantized": (QUANTIZED, TOKENS),
    "flow": (FLOW, flow()),
}


class Silent:
    """Hears nothing of how far a check is."""

    def stage(self, name: str, total: int = 0) -> None:
        pass

    def step(self, count: int = 1) -> None:
        pass

    def outputs(self, runtime: str, outputs: Sequence[Any]) -> None:
        pass


def checked(model: ModelProto, inputs: Arrays, *runtimes: RuntimeRuns, saved: Arrays | None = None) -> CheckResult:
    """Return the check of a model on one sample."""
    return checked_all(model, [sample_of(inputs, saved)], *runtimes)


def sample_of(inputs: Arrays, saved: Arrays | None = None) -> CheckedSample:
    return CheckedSample(dict(inputs), SampleFacts(origin="the test"), None if saved is None else dict(saved))


def checked_all(model: ModelProto, samples: Sequence[CheckedSample], *runtimes: RuntimeRuns) -> CheckResult:
    """Return the check of a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        save(model, path)
        return check_model(read_source(path), samples, runtimes, Silent())
