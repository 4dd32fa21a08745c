"""Faults that are planted in a runtime: the smallest model and inputs that still show them."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import parser

from actconform.check.minimize import minimize
from actconform.check.model_check import CheckedSample, check_model
from actconform.check.open_runtime import open_runtime
from actconform.check.result import SampleFacts
from actconform.check.source import read_source
from actconform.plugin.loader import GROUP, installed, load_plugins
from actconform.settings import BackendConfig, Config

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
PLUGIN = "planted:Plugin"
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 8] x) => (float[n, 8] y, float[n, 8] z)
{
    t = Tanh(x)
    p = MatMul(t, w)
    s = Add(p, b)
    r = Sigmoid(s)
    l = LayerNormalization <axis = -1> (r, scale, shift)
    e = Exp(l)
    y = Mul(e, l)
    q = Sqrt(e)
    z = Neg(q)
}
"""


class Silent:
    def stage(self, name, total=0):
        pass

    def step(self, count=1):
        pass

    def outputs(self, runtime, outputs):
        pass


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    proto = parser.parse_model(MODEL)
    generator = np.random.default_rng(1)
    for name, shape in {"w": (8, 8), "b": 8, "scale": 8, "shift": 8}.items():
        values = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="module")
def checked(model: Path) -> Callable:
    """Check the model on a runtime, and return its check, the sample, and the runtime, still open."""
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        catalog = load_plugins(entry_points=[*installed(), EntryPoint(PLUGIN, PLUGIN, GROUP)])
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])

    def check(name: str):
        runs = open_runtime(
            name, catalog, Config(backends={name: BackendConfig(env={"PYTHONPATH": path})}), plugins=(PLUGIN,)
        )
        opened.append(runs)
        x = np.random.default_rng(2).standard_normal((6, 8)).astype(np.float32)
        sample = CheckedSample({"x": x}, SampleFacts(origin="drawn"))
        result = check_model(read_source(model), [sample], [runs], Silent())
        return result, sample, runs

    yield check
    for runs in opened:
        runs.close()


def smallest(checked, name):
    result, sample, runs = checked(name)
    return minimize(result.runtimes[0].fault, sample.graph, sample.inputs, runs)


def operators(minimal):
    return [node.op_type for node in minimal.part.model.graph.node]


def test_a_wrong_operator_is_cut_out_alone_on_one_row_of_simple_numbers(checked):
    minimal = smallest(checked, "epsilon")
    assert operators(minimal) == ["LayerNormalization"]
    (array,) = minimal.part.inputs.values()
    assert array.shape == (1, 8)
    assert np.count_nonzero(array) < 8
    assert all(len(str(number)) < 7 for number in array.ravel())
    assert minimal.ratio > 100
    assert (minimal.reproduced, minimal.whole, minimal.level) == (True, False, "disabled")


def test_a_fused_pair_is_kept_together(checked):
    minimal = smallest(checked, "pair")
    assert operators(minimal) == ["MatMul", "Add"]
    assert minimal.level == "all"
    assert [output.name for output in minimal.part.model.graph.output] == ["s"]


def test_nodes_before_are_added_until_it_differs_alone(checked):
    assert operators(smallest(checked, "three")) == ["Tanh", "MatMul", "Add"]


def test_another_operator_is_cut_out_to_a_single_number(checked):
    minimal = smallest(checked, "nan")
    assert operators(minimal) == ["Sqrt"]
    assert [array.shape for array in minimal.part.inputs.values()] == [(1, 1)]


def test_time_and_runs_are_bounds(checked):
    result, sample, runs = checked("epsilon")
    minimal = minimize(result.runtimes[0].fault, sample.graph, sample.inputs, runs, most_runs=1)
    assert (minimal.reproduced, minimal.runs) == (True, 1)
    assert minimal.part.inputs["r"].shape == (6, 8)
