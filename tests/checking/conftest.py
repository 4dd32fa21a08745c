"""A model with a fault in a runtime, checked; the runtimes are those of planted.py."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import parser

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.model_check import check_model
from actconform.checking.open_runtime import open_runtime
from actconform.checking.result import SampleFacts
from actconform.checking.source import read_source
from actconform.plugin.loader import GROUP, installed, load_plugins
from actconform.settings import BackendConfig, Config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actconform.checking.runs import RuntimeRuns

HERE = Path(__file__).parent
sys.path[:0] = [
    str(HERE),
    str(HERE / "trained"),
]  # small_models.py and perceptron.py can be imported by the tests beside them
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
def checked(model: Path) -> Iterator[Callable[..., Any]]:
    """Check the model on a runtime, and return its check, the sample, and the runtime, still open."""
    from small_models import Silent

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


@pytest.fixture(scope="module")
def runtime() -> Iterator[Callable[[str], RuntimeRuns]]:
    """Give runtimes by name: those of the plugins, of planted.py and of graph_runtimes.py, each opened once."""
    opened: dict[str, RuntimeRuns] = {}
    plugins = (PLUGIN, "graph_runtimes:Plugin")
    catalog = load_plugins(entry_points=[*installed(), *(EntryPoint(plugin, plugin, GROUP) for plugin in plugins)])
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])

    def opened_once(name: str) -> RuntimeRuns:
        if name not in opened:
            config = Config(backends={name: BackendConfig(env={"PYTHONPATH": path})})
            opened[name] = open_runtime(name, catalog, config, plugins=plugins, timeout=60.0)
        return opened[name]

    yield opened_once
    for runs in opened.values():
        runs.close()
