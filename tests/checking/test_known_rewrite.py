"""What ONNX Runtime makes of a Pad of zeros before a MaxPool, and of a quantized Softmax: a known cause where the graph so rewritten gives what came, and only there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from small_models import checked, made, numbers

from actconform.checking.runs import MarkedTensors

if TYPE_CHECKING:
    from actconform.checking.result import RuntimeCheck
    from actconform.checking.runs import RuntimeRuns

CAUSE = "pad-of-zeros-into-max-pool"
X = {"x": -1.0 - np.abs(numbers(4, 1, 2, 6, 6))}  # where zeros are larger than all numbers
ONE = np.int64([0, 0, 1, 1, 0, 0, 1, 1])
POOL = "MaxPool <kernel_shape = [3, 3], strides = [2, 2]>"


def on(runs: RuntimeRuns, pad: str, pool: str = POOL, opset: int = 17, **constants) -> RuntimeCheck:
    text = f"(float[n, 2, 6, 6] x) => (float[n, c, h, w] y) {{ p = {pad}  y = {pool} (p) }}"
    return checked(made(text, {"sides": ONE, **constants}, opset), X, runs).runtimes[0]


@pytest.mark.parametrize("opset", [7, 10, 11, 17, 20])
@pytest.mark.parametrize("own", [[], [0, 1, 1, 0]])
def test_a_pad_of_zeros_that_becomes_padding_of_a_maximum_is_a_known_cause(runtime, opset: int, own: list[int]):
    pad = "Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (x)" if opset < 11 else "Pad (x, sides)"
    pool = POOL.replace("<", f"<pads = {own}, " if own else "<")
    ort = on(runtime("ort-cpu"), pad, pool, opset)
    if ort.fault is None:
        pytest.skip("this ONNX Runtime does not make a Pad of zeros the padding of a MaxPool")
    assert (ort.fault.blame, ort.fault.cause) == ("runtime:optimizer", CAUSE)
    assert [sentence for sentence in ort.fault.evidence if sentence.startswith(f"known cause {CAUSE}: ")]


@pytest.mark.parametrize(
    ("pad", "pool", "constants"),
    [
        ("Pad (x, sides, value)", POOL, {"value": np.float32(-9.0)}),
        ('Pad <mode = "edge"> (x, sides)', POOL, {}),
        ("Pad (x, sides)", POOL, {"sides": np.int64([0, 0, -1, 1, 0, 0, 1, 1])}),
        ("Pad (x, sides)", POOL, {"sides": np.int64([0, 1, 1, 1, 0, 0, 1, 1])}),
        ("Pad (x, sides)", POOL.replace("<", '<auto_pad = "SAME_UPPER", '), {}),
        ("Pad (x, sides)", POOL.replace("Max", "Average"), {}),
    ],
    ids=["value", "edge", "negative", "channels", "auto_pad", "average"],
)
def test_a_pad_that_is_no_padding_of_a_maximum_is_computed_as_it_stands(runtime, pad: str, pool: str, constants):
    assert on(runtime("ort-cpu"), pad, pool, **constants).status == "explained"


class Off:
    """A runtime that gives a number which no rewriting of the graph gives, at the levels that optimize."""

    def __init__(self, runs: RuntimeRuns, number: float) -> None:
        self._runs = runs
        self._number = number

    def __getattr__(self, name: str):
        return getattr(self._runs, name)

    def marked(self, model, sample, marks, *, budget_bytes, level="", final=None):
        for piece in self._runs.marked(model, sample, marks, budget_bytes=budget_bytes, level=level, final=final):
            values = dict(piece.values)
            if level != self.levels[0] and "y" in values:
                values["y"] = values["y"].copy()
                values["y"].flat[0] = self._number
            yield MarkedTensors(names=piece.names, values=values, moved=piece.moved)


def test_what_the_rewritten_graph_does_not_give_has_no_known_cause(runtime):
    fault = on(Off(runtime("ort-cpu"), -7.0), "Pad (x, sides)").fault
    assert (fault.blame, fault.cause) == ("runtime:optimizer", "")


SOFTMAX = "quantized-softmax-scale"
FUSED = "x = DequantizeLinear (q, s, z)  p = Softmax <axis = 1> (x)  y = QuantizeLinear (p, t, z)"
WRITTEN = "y = com.microsoft.QLinearSoftmax <axis = 1, opset = 13> (q, s, z, t, z)"
Q = np.random.default_rng(9).integers(0, 256, (40, 6))


def softmax_on(runs: RuntimeRuns, nodes: str, scale: float, dtype: str = "uint8") -> RuntimeCheck:
    lowest = np.iinfo(dtype).min
    constants = {"s": np.float32(0.05), "t": np.float32(scale), "z": np.dtype(dtype).type(lowest)}
    model = made(f"({dtype}[n, 6] q) => ({dtype}[n, 6] y) {{ {nodes} }}", constants)
    return checked(model, {"q": (Q + lowest).astype(dtype)}, runs).runtimes[0]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(("nodes", "blame"), [(FUSED, "runtime:optimizer"), (WRITTEN, "runtime")])
def test_a_quantized_softmax_of_a_reciprocal_rounded_down_is_a_known_cause(runtime, nodes: str, blame: str, dtype: str):
    ort = softmax_on(runtime("ort-cpu"), nodes, 1 / 255, dtype)
    if ort.fault is None:
        pytest.skip("this ONNX Runtime does not round the reciprocal of a quantized Softmax's scale")
    assert (ort.fault.blame, ort.fault.cause) == (blame, SOFTMAX)


@pytest.mark.parametrize("nodes", [FUSED, WRITTEN])
def test_a_quantized_softmax_of_a_whole_reciprocal_is_right(runtime, nodes: str):
    assert softmax_on(runtime("ort-cpu"), nodes, 1 / 256).status == "explained"


def test_a_quantized_softmax_that_is_off_otherwise_has_no_known_cause(runtime):
    fault = softmax_on(Off(runtime("ort-cpu"), 77), FUSED, 1 / 255).fault
    assert (fault.blame, fault.cause) == ("runtime:optimizer", "")
