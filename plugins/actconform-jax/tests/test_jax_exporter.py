"""jax2onnx: what it writes has the names, types and dimensions asked for and computes the same; what it refuses; its absence."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from actconform import Unavailable, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform_jax import Jax2Onnx, JaxBackend
from actconform_jax.exporters import _converted
from tests.missing_package import take_away

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MLP = next(model for model in networks() if model.name == "mlp-relu")


@pytest.fixture
def reference() -> Any:
    pytest.importorskip("jax2onnx")
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", ["relu", "gelu-tanh", "softmax"])
def test_a_kernels_graph_has_its_names_and_computes_what_jax_computes(name: str, dtype: Any, reference: Any) -> None:
    kernel = KERNELS[name]
    short = {np.float32: "f32", np.float16: "f16"}[dtype]
    artifact = Jax2Onnx().export(kernel, short)
    graph = onnx.load_model_from_string(artifact.model).graph
    assert [one.name for one in graph.input] == list(kernel.inputs)
    assert [one.name for one in graph.output] == ["y"]
    assert artifact.opset >= 18
    draw = np.random.default_rng(1)
    inputs = {one: draw.standard_normal([4] * len(kernel.dims(one))).astype(dtype) for one in kernel.inputs}
    (y,) = reference(onnx.load_model_from_string(artifact.model)).run(None, inputs)
    wanted = JaxBackend().build(kernel, short).forward(inputs)["y"]
    assert y.dtype == dtype
    np.testing.assert_allclose(y, wanted, rtol=1e-2 if dtype is np.float16 else 1e-5, atol=1e-3)


def test_a_model_is_exported_with_every_layer_and_as_it_is_shipped(reference: Any) -> None:
    parameters = {name: array.astype(np.float32) for name, array in draw_parameters(MLP).items()}
    tensors = {name: array.astype(np.float32) for name, array in draw_inputs(MLP).items()}
    whole = onnx.load_model_from_string(Jax2Onnx().export_model(MLP, "f32", None).model)
    names = [one.name for one in whole.graph.output]
    assert names == ["y", "loss", *(f"layer.{layer.name}" for layer in MLP.layers)]
    shipped = onnx.load_model_from_string(Jax2Onnx().export_model(MLP, "f32", parameters).model)
    assert [one.name for one in shipped.graph.input] == [one.name for one in MLP.inputs if one.role != "target"]
    (y,) = reference(shipped).run(None, {one.name: tensors[one.name] for one in shipped.graph.input})
    np.testing.assert_allclose(
        y, JaxBackend().build_model(MLP, "f32").forward({**tensors, **parameters})["y"], rtol=1e-4, atol=1e-5
    )


def test_a_refusal_keeps_its_words() -> None:
    pytest.importorskip("jax2onnx")

    def broken(_: Any) -> Any:
        raise NotImplementedError("no plugin registered for primitive 'odd'\nand more")

    with pytest.raises(Unsupported, match=r"no plugin registered for primitive 'odd'$"):
        _converted(broken, {"x": ("n",)}, ["y"], "f32")


def test_without_jax2onnx_the_export_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch, "jax2onnx")
    with pytest.raises(Unavailable, match=r"pip install \"actconform-jax\[export\]"):
        Jax2Onnx().export(KERNELS["relu"], "f32")
