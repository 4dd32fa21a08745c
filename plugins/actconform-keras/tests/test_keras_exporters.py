"""The exporters of Keras programs: every kernel becomes a graph or is refused in words; a sound graph computes it at any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from actconform import Artifact, Exporter, Kernel, Unavailable, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.oracle import truth
from actconform.plugin.builtin import Builtin
from actconform.plugin.framework import Implementation
from actconform.plugin.loader import load_plugins
from actconform.workers.protocol import ExportJob
from actconform.workers.session import Session
from actconform_keras import KerasBackend, KerasExport, Tf2Onnx, plugin
from actconform_keras.keras_module import keras_on
from tests.missing_package import take_away

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ort = pytest.importorskip("onnxruntime")

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
ELEMENT = {"f32": onnx.TensorProto.FLOAT, "f16": onnx.TensorProto.FLOAT16}
EXPORTERS = (Tf2Onnx, KerasExport)

# What Keras's own default is, where it is not the definition: declared differences.
DEFAULTS = {"hard-sigmoid-default": "hard-sigmoid-relu6", "leaky-relu-default": "leaky-relu-0.2"}


@pytest.fixture(scope="module", autouse=True)
def tf() -> Any:
    return keras_on("tensorflow")


def inputs_at(kernel: Kernel, sizes: dict[str, int]) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(40)
    x = rng.uniform(-4, 4, [sizes[dim] for dim in kernel.dims("x")]).astype(np.float32)
    if kernel.name == "sparsemax":
        # More than 1 apart: one entry has it all. Where several share, Keras 3.15 is wrong (keras-team/keras#23425).
        x = (rng.permuted(np.tile(np.arange(x.shape[1]), (x.shape[0], 1)), axis=1) * 1.5).astype(np.float32)
    for kink in KERNELS[DEFAULTS.get(kernel.name, kernel.name)].kinks:
        x[np.abs(x - kink.x) < 0.01] += np.float32(0.02)
    return {"x": x}


def sizes_of(kernel: Kernel) -> Iterator[dict[str, int]]:
    yield {"b": 3, "n": 40, "m": 2}
    yield {"b": 1, "n": 65536 if kernel.form == "unary" else 1000, "m": 7}
    yield {"b": 1, "n": 1 if kernel.form == "unary" else 2, "m": 1}


def check_runs_at_any_size(kernel: Kernel, artifact: Artifact) -> None:
    session = ort.InferenceSession(artifact.model, providers=["CPUExecutionProvider"])
    for sizes in sizes_of(kernel):
        inputs = inputs_at(kernel, sizes)
        (y,) = session.run(["y"], inputs)
        meant = KERNELS[DEFAULTS.get(kernel.name, kernel.name)]
        wanted = truth(meant, {name: array.astype(np.float64) for name, array in inputs.items()})["y"]
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5, err_msg=f"{kernel.name} at {sizes}")


def unregistered(model: onnx.ModelProto) -> set[str]:
    (opset,) = (entry.version for entry in model.opset_import if not entry.domain)
    return {node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, opset, node.domain)}


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_every_kernel_is_a_graph_or_refused_in_words(exporter: type[Exporter], kernel: Kernel) -> None:
    try:
        artifact = exporter().export(kernel, "f32")
    except Unsupported as refusal:
        words = str(refusal)
        assert words.splitlines() == [words]
        return
    model = onnx.load_from_string(artifact.model)
    assert [value.name for value in model.graph.input] == list(kernel.inputs)
    assert [value.name for value in model.graph.output] == ["y"]
    assert (artifact.opset, artifact.ir_version) == (model.opset_import[0].version, model.ir_version)
    if unregistered(model):  # written all the same: a gate names it
        with pytest.raises(Exception, match="|".join(unregistered(model))):
            ort.InferenceSession(artifact.model, providers=["CPUExecutionProvider"])
    else:
        onnx.checker.check_model(model, full_check=True)
        check_runs_at_any_size(kernel, artifact)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_plain_kernels_are_valid_graphs(exporter: type[Exporter]) -> None:
    for name in ("tanh", "gelu-tanh", "softmax", "maxout"):
        artifact = exporter().export(KERNELS[name], "f32")
        assert not unregistered(onnx.load_from_string(artifact.model))
        check_runs_at_any_size(KERNELS[name], artifact)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_operation_left_in_the_graph_was_warned_of(
    exporter: type[Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def special(x: Any) -> Any:
        import tensorflow as tf

        return tf.math.bessel_i0(x)

    monkeypatch.setattr("actconform_keras.exporters.implement", lambda *_: Implementation("tf.math.bessel_i0", special))
    outcome = Session(KerasBackend(), load_plugins([Builtin, plugin], [])).export(
        ExportJob(exporter.name, "relu", "f32")
    )
    assert outcome.artifact is not None
    (left,) = unregistered(onnx.load_from_string(outcome.artifact.model))
    assert any(left in warning for warning in outcome.artifact.warnings)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("dtype", ELEMENT)
@pytest.mark.parametrize(
    ("exporter", "path"), [(Tf2Onnx, "from_function"), (KerasExport, "model.export on tensorflow: tf2onnx")]
)
def test_a_graph_has_the_dtype_asked_for_and_tells_its_path(exporter: type[Exporter], path: str, dtype: str) -> None:
    artifact = exporter().export(KERNELS["relu"], dtype)
    assert artifact.path == path
    graph = onnx.load_from_string(artifact.model).graph
    types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == {ELEMENT[dtype]}


@pytest.mark.filterwarnings("ignore::Warning")
def test_what_is_said_of_a_graph_does_not_depend_on_earlier_ones() -> None:
    names = [
        [node.name for node in onnx.load_from_string(KerasExport().export(KERNELS["relu"], "f32").model).graph.node]
        for _ in range(2)
    ]
    assert names[0] == names[1]


def test_a_model_of_prelu_takes_no_slope() -> None:
    with pytest.raises(Unsupported, match=r"keras\.layers\.PReLU holds slope as a weight of fixed width"):
        KerasExport().export(KERNELS["prelu"], "f32")


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_what_keras_refuses_is_said_without_its_frames(
    exporter: type[Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(x: Any) -> Any:
        raise NotImplementedError("no such op\nand much more")

    monkeypatch.setattr("actconform_keras.exporters.implement", lambda *_: Implementation("refuse", refuse))
    with pytest.raises(Unsupported, match=r"^NotImplementedError: .*no such op$"):
        exporter().export(KERNELS["relu"], "f32")


def test_a_kernel_without_an_implementation_is_unsupported() -> None:
    unknown = Kernel(name="no-such", definition="", source="")
    for exporter in EXPORTERS:
        with pytest.raises(Unsupported, match="keras has no implementation of kernel no-such"):
            exporter().export(unknown, "f32")


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_without_tf2onnx_an_export_is_unavailable(exporter: type[Exporter], monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch, "tf2onnx")
    with pytest.raises(Unavailable, match=r"tf2onnx.*pip install \"actconform\[keras\]"):
        exporter().export(KERNELS["relu"], "f32")


def test_the_hook_offers_both() -> None:
    assert {(one.name, one.source) for one in plugin.actconform_exporters()} == {
        ("tf2onnx", "keras"),
        ("keras-export", "keras"),
    }
