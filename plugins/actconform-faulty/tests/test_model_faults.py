"""Faults of a runtime on a user's model: each changes one node, and leaves a graph that is valid."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from actconform import Artifact, Unsupported
from actconform.plugin.loader import load_plugins
from actconform_faulty.model_faults import MODEL_FAULTS, inject_into
from actconform_faulty.model_runtime import PLACE, FaultyModel

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 4] x, bool flag) => (float[n, 4] y)
{
    p = MatMul (x, w)
    q = MatMul (p, w)
    a = Add (q, b)
    y = If (flag) <
        then_branch = t () => (float[n, 4] inner) { r = MatMul (a, w)  inner = Relu (r) },
        else_branch = e () => (float[n, 4] other) { other = Tanh (a) }
    >
}
"""
X = {"x": np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32), "flag": np.array(True)}


@pytest.fixture
def model():
    proto = parser.parse_model(TEXT)
    for name, shape in {"w": (4, 4), "b": 4}.items():
        values = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    return proto


def run(backend, model, level=""):
    artifact = Artifact(model.SerializeToString(), 17, "model")
    return backend.load(artifact, "f32", level).forward(X)["y"]


def test_the_backend_runs_only_where_it_is_asked_for_and_has_each_fault_twice():
    backend = load_plugins().backends["faulty-model"]
    assert backend.extra
    assert set(backend.variants) == {*MODEL_FAULTS, *(f"{name}-optimized" for name in MODEL_FAULTS)}
    assert all(fault.what and fault.operators for fault in MODEL_FAULTS.values())
    with pytest.raises(Unsupported, match="no fault is called no-such"):
        backend().variant("no-such")


def test_a_shared_constant_is_changed_for_one_node_alone(model):
    assert inject_into(model, "weight-f16", "q")
    first, second = model.graph.node[:2]
    assert first.input[1] == "w"
    assert second.input[1] != "w"
    changed = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(changed[second.input[1]], changed["w"].astype(np.float16).astype(np.float32))
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("tensor", ["r", "If:y/r"])
def test_a_node_of_a_graph_within_is_found_by_its_own_name(model, tensor):
    assert inject_into(model, "through-f16", "r")
    onnx.checker.check_model(model, full_check=True)
    flat = parser.parse_model(TEXT.replace("r = MatMul (a, w)", "r = Neg (a)"))
    flat.graph.node[1].output[0] = "If:y/r"
    assert inject_into(flat, "through-f16", "r")
    assert "If:y/r/raw" in flat.graph.node[1].output


def test_a_node_that_cannot_have_the_fault_is_left_alone(model):
    before = model.SerializeToString()
    assert not inject_into(model, "relu-leaky", "y")
    assert not inject_into(model, "gates-swapped")
    assert not inject_into(model, "weight-f16", "no such tensor")
    assert model.SerializeToString() == before


def test_the_runtime_has_the_fault_in_the_tensor_of_the_environment(model, monkeypatch):
    healthy, faulty = FaultyModel(), FaultyModel().variant("weight-transposed")
    right = run(healthy, model)
    monkeypatch.setenv(PLACE, "q")
    wrong = run(faulty, model)
    assert not np.allclose(right, wrong)
    monkeypatch.setenv(PLACE, "p")
    assert not np.allclose(run(faulty, model), wrong)
    monkeypatch.setenv(PLACE, "no such tensor")
    np.testing.assert_array_equal(run(faulty, model), right)


def test_a_fault_of_the_optimizer_is_not_there_without_optimization(model, monkeypatch):
    monkeypatch.setenv(PLACE, "p")
    faulty = FaultyModel().variant("weight-transposed-optimized")
    right = run(FaultyModel(), model, "disabled")
    np.testing.assert_array_equal(run(faulty, model, "disabled"), right)
    for level in ("basic", "all", "", "without ConstantFolding"):
        assert not np.allclose(run(faulty, model, level), right)


def test_the_model_is_read_from_a_file_too_and_its_surviving_tensors_are_those_of_the_fault(model, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    artifact = Artifact(b"", 17, "model", file=str(tmp_path / "model.onnx"))
    faulty = FaultyModel().variant("through-f16")
    assert {"p", "p/raw"} <= set(faulty.surviving_tensors(artifact, "f32", "disabled"))
    assert faulty.load(artifact, "f32", "all").forward(X)["y"].shape == (3, 4)
    assert faulty.reproduction() == ""
