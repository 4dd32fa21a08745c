"""Registered causes on a user's model: named where they explain the node that is off, however it stands in its tensor."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import parser
from small_models import Silent

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.model_check import check_model
from actconform.checking.open_runtime import open_runtime
from actconform.checking.result import SampleFacts
from actconform.checking.source import read_source
from actconform.plugin.loader import GROUP, installed, load_plugins
from actconform.settings import BackendConfig, Config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actconform.checking.result import RuntimeCheck

HERE = Path(__file__).parent
PLUGIN = "skipping:Plugin"
NAN = np.nan
X = np.random.default_rng(3).normal(0, 2, (3, 4, 5)).astype(np.float32)
WITH_NAN = X.copy()
WITH_NAN[1, 2, 3] = WITH_NAN[0, 0, 0] = NAN


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> Iterator[Callable[..., RuntimeCheck]]:
    """Check a node after a Neg on a runtime, and return its check."""
    opened = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        catalog = load_plugins(entry_points=[*installed(), EntryPoint(PLUGIN, PLUGIN, GROUP)])
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    config = Config(
        backends={"skipping": BackendConfig(env={"PYTHONPATH": path})}, deviations=(str(HERE / "skipping.toml"),)
    )
    folder = tmp_path_factory.mktemp("models")

    def check(node: str, x=X, output: str = "float[a, b, c]", opset: int = 17, runtime: str = "skipping"):
        if runtime not in opened:
            opened[runtime] = open_runtime(runtime, catalog, config, plugins=(PLUGIN,))
        model = parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[a, b, c] x) => ({output} y) '
            f"<float[5] slope = {{0.5, 1, 2, 3, 4}}> {{ t = Neg(x) y = {node} }}"
        )
        onnx.save(model, folder / "model.onnx")
        sample = CheckedSample({"x": -x}, SampleFacts(origin="drawn"))
        return check_model(read_source(folder / "model.onnx"), [sample], [opened[runtime]], Silent()).runtimes[0]

    yield check
    for runs in opened.values():
        runs.close()


@pytest.mark.parametrize(
    ("node", "x", "opset"),
    [
        ("Relu(t)", WITH_NAN, 17),
        ("Exp(t)", WITH_NAN, 17),
        ("ThresholdedRelu<alpha = 0.75>(t)", X, 17),
        ("Softmax<axis = 1>(t)", X, 17),
        ("Softmax<axis = 1>(t)", X, 11),
        ("PRelu(t, slope)", X, 17),
    ],
)
def test_a_formula_that_admits_what_is_off_is_a_known_cause(checked, node: str, x, opset: int):
    runtime = checked(node, x, opset=opset)
    assert runtime.status == "not explained"
    assert (runtime.fault.blame, runtime.fault.cause) == ("runtime", "other-functions")
    words = "known cause other-functions: its operators are other functions (https://example.org/1)"
    assert words in runtime.fault.evidence


@pytest.mark.parametrize(
    "node",
    [
        "Tanh(t)",  # by another formula
        "Elu(t)",  # of another version
    ],
)
def test_a_cause_that_does_not_explain_it_is_not_named(checked, node: str):
    runtime = checked(node)
    assert (runtime.status, runtime.fault.cause) == ("not explained", "")
    assert not [sentence for sentence in runtime.fault.evidence if "known cause" in sentence]


def test_an_entry_without_a_formula_may_be_the_cause(checked):
    runtime = checked("ReduceMax<axes = [0, 2], keepdims = 0>(t)", WITH_NAN, "float[b]")
    assert (runtime.fault.blame, runtime.fault.cause) == ("runtime", "row-maximum")
    assert "may be known cause row-maximum: a row's maximum skips NaN (unreported)" in runtime.fault.evidence


def test_the_registers_of_plugins_hold_for_user_models(checked):
    """ONNX Runtime's maximum of a row with NaN depends on where it stands, and on the processor."""
    rows = np.arange(80, dtype=np.float32).reshape(1, 4, 20).repeat(20, axis=0)
    rows[np.arange(20), :, np.arange(20)] = NAN
    runtime = checked("ReduceMax<axes = [2], keepdims = 0>(t)", rows, "float[a, b]", runtime="ort-cpu")
    if runtime.fault is None:
        pytest.skip("the maximum of a row spreads NaN on this processor")
    assert runtime.fault.cause == "row-maximum-skips-nan"
