"""What survives ONNX Runtime's optimization: asked of OrtCpu as a worker does, and held against marks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import ModelProto, ValueInfoProto, numpy_helper, parser

from actconform import Artifact, Unsupported
from actconform_onnxruntime import OrtCpu

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnxruntime")

LEVELS = ("disabled", "basic", "extended", "all", "")
GELU = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 8] x) => (float[2, 8] y) <float root = {1.4142135}, float one = {1}, float half = {0.5}> {
        p = MatMul(x, w)  b = Add(p, c)  d = Div(b, root)  e = Erf(d)  f = Add(e, one)  m = Mul(b, f)  y = Mul(m, half) }"""
# The second convolution's result goes into a node that knows no blocks of channels, and so is put back in order.
BLOCKS = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 32, 9, 9] x) => (float[1, 32, 9, 9] y) {
        a = Conv<pads = [1, 1, 1, 1]>(x, k)  r = Relu(a)  t = Conv<pads = [1, 1, 1, 1]>(r, k)  s = Softmax<axis = 1>(t)  y = Add(s, x) }"""


def model_of(text: str, **weights: tuple[int, ...]) -> ModelProto:
    rng = np.random.default_rng(5)
    model: ModelProto = parser.parse_model(text)
    for name, shape in weights.items():
        values = rng.normal(scale=0.1, size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


MODELS = {"gelu": model_of(GELU, w=(8, 8), c=(8,)), "blocks": model_of(BLOCKS, k=(32, 32, 3, 3))}


def artifact(model: ModelProto) -> Artifact:
    return Artifact(model.SerializeToString(), 17, "tests")


def outputs(model: ModelProto, level: str) -> dict[str, Any]:
    (value,) = model.graph.input
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    x = np.random.default_rng(6).normal(size=shape).astype(np.float32)
    return dict(OrtCpu().load(artifact(model), "f32", level).forward({"x": x}))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", MODELS)
def test_marks_on_what_survives_change_no_bit_and_are_the_tensors_of_that_name(name: str, level: str) -> None:
    model = MODELS[name]
    names = OrtCpu().surviving_tensors(artifact(model), "f32", level)
    tensors = [output for node in model.graph.node for output in node.output]
    assert "y" in names
    assert [tensor for tensor in tensors if tensor in names] == list(names)
    assert list(names) == tensors or level != "disabled"
    marked = ModelProto()
    marked.CopyFrom(model)
    marked.graph.output.extend(ValueInfoProto(name=tensor) for tensor in names if tensor != "y")
    values = outputs(marked, level)
    assert values["y"].tobytes() == outputs(model, level)["y"].tobytes()
    everything = ModelProto()
    everything.CopyFrom(model)
    everything.graph.output.extend(ValueInfoProto(name=tensor) for tensor in tensors if tensor != "y")
    plain = outputs(everything, "disabled")
    for tensor in names:
        np.testing.assert_allclose(values[tensor], plain[tensor], rtol=1e-4, atol=1e-4, err_msg=tensor)


def test_what_is_fused_does_not_survive() -> None:
    fused = {"d", "e", "f", "m"}
    assert fused.isdisjoint(OrtCpu().surviving_tensors(artifact(MODELS["gelu"]), "f32", "extended"))
    assert "a" not in OrtCpu().surviving_tensors(artifact(MODELS["blocks"]), "f32", "all")


def test_a_tensor_that_is_put_back_in_order_survives_blocks_of_channels() -> None:
    assert "t" in OrtCpu().surviving_tensors(artifact(MODELS["blocks"]), "f32", "all")


def test_graphs_come_from_files_too_and_each_has_a_place_of_its_own(tmp_path: Path) -> None:
    files = {}
    for name, model in MODELS.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        files[name] = Artifact(b"", 17, "tests", file=str(path))
    expected = {name: OrtCpu().surviving_tensors(artifact(model), "f32", "all") for name, model in MODELS.items()}
    with ThreadPoolExecutor(2) as pool:
        asked = list(MODELS) * 4
        answers = pool.map(lambda name: OrtCpu().surviving_tensors(files[name], "f32", "all"), asked)
        assert list(answers) == [expected[name] for name in asked]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocks.onnx", "gelu.onnx"]
    x = np.ones((2, 8), np.float32)
    from_file, from_bytes = (
        OrtCpu().load(graph, "f32").forward({"x": x})["y"] for graph in (files["gelu"], artifact(MODELS["gelu"]))
    )
    assert from_file.tobytes() == from_bytes.tobytes()


def test_a_refusal_is_in_onnxruntimes_words(tmp_path: Path) -> None:
    model = model_of(GELU.replace("Erf", "Erfc"), w=(8, 8), c=(8,))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for graph in (artifact(model), Artifact(b"", 17, "tests", file=str(path))):
        for ask in (OrtCpu().surviving_tensors, OrtCpu().load):
            with pytest.raises(Unsupported, match="Erfc") as error:
                ask(graph, "f32", "")
            assert str(tmp_path) not in str(error.value)
    newer = model_of(GELU.replace('"" : 17', '"" : 999'), w=(8, 8), c=(8,))
    path.write_bytes(newer.SerializeToString())
    with pytest.raises(Unsupported, match="the graph is of opset 999"):
        OrtCpu().load(Artifact(b"", 17, "tests", file=str(path)), "f32")
