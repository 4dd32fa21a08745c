"""Torch's exporters: every kernel becomes a graph or is refused in words; a graph computes the kernel at any size, or says not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from actconform import Artifact, Exporter, Kernel, Unavailable, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.oracle import truth
from actconform.plugin.framework import Implementation
from actconform_torch import TorchDynamo, TorchScript, plugin
from actconform_torch import torch_module as module
from actconform_torch.export_refusal import refusal_of_export
from actconform_torch.exporters import SIZES
from tests.missing_package import take_away

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ort = pytest.importorskip("onnxruntime")

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
ELEMENT = {"f32": onnx.TensorProto.FLOAT, "f16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}

# What torch's own default is, where it is not the definition: a declared difference.
DEFAULTS = {"hard-sigmoid-default": "hard-sigmoid-relu6"}

# An export by way of torch.export takes a second: one of each kind.
DYNAMO = ("relu", "leaky-relu-default", "softmax-axis1", "prelu", "argmax", "glu", "reglu", "squareplus")


@pytest.fixture(scope="module", autouse=True)
def torch() -> Any:
    return module.import_torch()


def inputs_at(kernel: Kernel, sizes: dict[str, int]) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(40)
    drawn = {
        name: rng.uniform(-4, 4, [sizes[dim] for dim in kernel.dims(name)]).astype(np.float32) for name in kernel.inputs
    }
    for kink in KERNELS[DEFAULTS.get(kernel.name, kernel.name)].kinks:
        near = np.abs(drawn["x"] - kink.x) < 0.01
        drawn["x"][near] += np.float32(0.02)
    return drawn


def other_sizes(kernel: Kernel) -> Iterator[dict[str, int]]:
    """None is a size that was exported at; the last is a single element or pair."""
    yield {"b": 3, "n": 40, "m": 2}
    yield {"b": 1, "n": 65536 if kernel.form == "unary" else 1000, "m": 7}
    yield {"b": 1, "n": 1 if kernel.form == "unary" else 2, "m": 1}


def fixed_dims(model: onnx.ModelProto) -> list[str]:
    return [
        f"{value.name}[{axis}] = {dim.dim_value}"
        for value in model.graph.input
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        if dim.HasField("dim_value")
    ]


def check_runs_at_other_sizes(kernel: Kernel, artifact: Artifact) -> None:
    session = ort.InferenceSession(artifact.model, providers=["CPUExecutionProvider"])
    for sizes in other_sizes(kernel):
        inputs = inputs_at(kernel, sizes)
        (y,) = session.run(["y"], inputs)
        meant = KERNELS[DEFAULTS.get(kernel.name, kernel.name)]
        wanted = truth(meant, {name: array.astype(np.float64) for name, array in inputs.items()})["y"]
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5, err_msg=f"{kernel.name} at {sizes}")


def check(exporter: type[Exporter], kernel: Kernel) -> str:
    """Return what became of an export: "valid", why it was refused, or which dimensions are fixed."""
    try:
        artifact = exporter().export(kernel, "f32")
    except Unsupported as refusal:
        return f"unsupported: {refusal}"
    model = onnx.load_from_string(artifact.model)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == list(kernel.inputs)
    assert [value.name for value in model.graph.output] == ["y"]
    assert artifact.ir_version == model.ir_version
    assert artifact.opset == next(entry.version for entry in model.opset_import if not entry.domain)
    if fixed := fixed_dims(model):
        return f"fixed: {fixed}"
    check_runs_at_other_sizes(kernel, artifact)
    return "valid"


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_torchscript_exports_every_kernel_or_refuses_in_words(kernel: Kernel) -> None:
    became = check(TorchScript, kernel)
    assert became == "valid" or "Error: " in became
    assert not re.search(r"[\x1b\n]| 0x", became)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("name", DYNAMO)
def test_dynamo_exports_each_kind_of_kernel_or_refuses_in_words(name: str) -> None:
    became = check(TorchDynamo, KERNELS[name])
    assert became == "valid" or "Error: " in became or f"= {SIZES['n']}" in became
    assert not re.search(r"[\x1b\n]| 0x", became)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("exporter", [TorchDynamo, TorchScript])
def test_plain_kernels_are_valid_graphs(exporter: type[Exporter]) -> None:
    assert {name: check(exporter, KERNELS[name]) for name in ("tanh", "softmax")} == {
        "tanh": "valid",
        "softmax": "valid",
    }


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("dtype", ELEMENT)
@pytest.mark.parametrize(("exporter", "path"), [(TorchDynamo, "dynamo"), (TorchScript, "torchscript")])
def test_a_graph_has_the_dtype_asked_for_and_tells_its_path(exporter: type[Exporter], path: str, dtype: str) -> None:
    artifact = exporter().export(KERNELS["relu"], dtype)
    assert artifact.path == path
    graph = onnx.load_from_string(artifact.model).graph
    types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == {ELEMENT[dtype]}


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("exporter", [TorchDynamo, TorchScript])
def test_what_torch_refuses_is_said_in_its_first_cause(
    exporter: type[Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def special(x: Any) -> Any:
        import torch

        return torch.special.airy_ai(x)

    monkeypatch.setattr("actconform_torch.exporters.implement", lambda _: Implementation("special", special))
    with pytest.raises(Unsupported, match=r"^\w+Error: .*airy_ai") as raised:
        exporter().export(KERNELS["relu"], "f32")
    assert "\n" not in str(raised.value)


def test_a_kernel_without_an_implementation_is_unsupported() -> None:
    unknown = Kernel(name="no-such", definition="", source="")
    with pytest.raises(Unsupported, match="torch has no implementation of kernel no-such"):
        TorchDynamo().export(unknown, "f32")


def test_without_onnxscript_dynamo_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch, "onnxscript")
    with pytest.raises(Unavailable, match=r"onnxscript.*pip install .actconform\[torch\]"):
        TorchDynamo().export(KERNELS["relu"], "f32")


def test_the_hook_offers_both() -> None:
    assert plugin.actconform_exporters() == [TorchDynamo, TorchScript]
    assert {(one.name, one.source) for one in plugin.actconform_exporters()} == {
        ("torch-dynamo", "torch"),
        ("torch-torchscript", "torch"),
    }


def test_an_onnxscript_that_torch_cannot_use_is_unavailable_and_no_refusal() -> None:
    missing = ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_2_11'")
    refusal = refusal_of_export(RuntimeError("export failed"))
    assert isinstance(refusal, Unsupported)
    wrapped = RuntimeError("export failed")
    wrapped.__cause__ = missing
    refusal = refusal_of_export(wrapped)
    assert isinstance(refusal, Unavailable)
    assert str(refusal).startswith("torch 2.")
    assert "onnxscript._framework_apis.torch_2_11'" in str(refusal)
    assert str(refusal).endswith(": pip install --upgrade onnxscript")
