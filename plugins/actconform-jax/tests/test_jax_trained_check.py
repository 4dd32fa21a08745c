"""`actconform.check` of JAX models in a worker of their own: their export is explained, and faults in it are blamed on it at the right layer."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import actconform
from actconform.errors import UsageError

for package in ("jax", "flax", "equinox", "jax2onnx", "onnxruntime"):
    pytest.importorskip(package)

pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("user")
    shutil.copy(Path(__file__).parent / "jax_networks.py", path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


@pytest.fixture(scope="module")
def exported(folder):
    """The check of each model with its export, made once."""
    made = {}

    def checked(name):
        if name not in made:
            made[name] = actconform.check(f"jax_networks:{name}", runtimes="ort-cpu", out=folder / name)
        return made[name], folder / name / "jax2onnx" / "model.onnx"

    return checked


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("mlp", {"first", "norm", ":gelu", "last"}),
        ("conv", {"conv", "bn", ":relu", "depthwise", "head"}),
        ("attention", {"layers.0.norm", "layers.0.attention", "layers.1:silu", "layers.1"}),
        ("plain", {":tanh"}),
    ],
)
def test_a_healthy_model_is_explained_and_its_layers_are_found(exported, name, layers):
    checked, _ = exported(name)
    assert checked, str(checked)
    (model,) = checked.result.trained
    assert [column.name for column in checked.result.runtimes] == ["jax", "ort-cpu"]
    assert checked.result.exporter == "jax2onnx"
    matched = {name for match in model.matches for name in (match.layer, *match.aliases)}
    assert layers <= matched
    assert all(weight.exact for weight in model.weights)


def epsilon(model):
    (name,) = [node.input[1] for node in model.graph.node if node.op_type == "Add" and "eps" in node.output[0]]
    (tensor,) = [each for each in model.graph.initializer if each.name == name]
    tensor.CopyFrom(numpy_helper.from_array(np.array(1e-3, np.float32), name))


def tanh_gelu(model):
    (node,) = [node for node in model.graph.node if node.op_type == "Gelu"]
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("approximate", "tanh"))


def rounded(model):
    tensor = next(each for each in model.graph.initializer if list(each.dims) == [8, 3])
    values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def moved_mean(model):
    (node,) = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    (tensor,) = [each for each in model.graph.initializer if each.name == node.input[3]]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1e-3), tensor.name))


@pytest.mark.parametrize(
    ("name", "fault", "layer"),
    [
        ("mlp", epsilon, "norm"),
        ("mlp", tanh_gelu, ":gelu"),
        ("mlp", rounded, "last"),
        ("conv", moved_mean, "bn"),
    ],
)
def test_a_fault_of_the_export_is_blamed_on_it_at_its_layer(exported, folder, name, fault, layer):
    _, path = exported(name)
    model = onnx.load(path)
    fault(model)
    onnx.save(model, folder / f"{fault.__name__}.onnx")
    checked = actconform.check(folder / f"{fault.__name__}.onnx", against=f"jax_networks:{name}", runtimes="ort-cpu")
    assert not checked
    assert checked.first is not None
    assert (checked.first.fault.blame, checked.first.fault.layer) == ("exporter", layer), str(checked)


def test_a_live_model_is_checked_in_this_process():
    import jax_networks

    module, (x,) = jax_networks.mlp()
    checked = actconform.check(module, inputs=x, runtimes="ort-cpu")
    assert checked, str(checked)
    assert checked.result.trained[0].source == "Mlp of this process"


def test_what_the_exporter_refuses_names_the_operator(folder):
    checked = actconform.check("jax_networks:opaque", runtimes="ort-cpu")
    assert not checked
    assert "eigh" in str(checked)


def test_a_factory_that_raises_is_told_with_the_users_line(folder):
    with pytest.raises(UsageError, match=r"jax_networks:raises: raised KeyError: 'missing'\n.*in raises"):
        actconform.check("jax_networks:raises", runtimes="ort-cpu")
