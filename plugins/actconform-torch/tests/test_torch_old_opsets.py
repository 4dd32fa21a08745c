"""What torch's exporters write at old opsets, and of pools that round upwards: gradients as torch's in float64."""

from __future__ import annotations

import logging
import warnings
from io import BytesIO

import numpy as np
import onnx
import pytest

from actconform.onnx.grad.reverse_mode import add_gradients
from actconform_torch import torch_module as module

torch = module.import_torch()
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402  once torch is known to be there

POOLS = {
    "a window of one": nn.MaxPool2d(1, 2, ceil_mode=True),
    "maximum": nn.MaxPool2d(3, 2, ceil_mode=True),
    "mean": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
    "mean without padding": nn.AvgPool2d(3, 3, padding=1, ceil_mode=True, count_include_pad=False),
    "behind others": nn.Sequential(
        nn.Tanh(), nn.MaxPool2d(1, 2, ceil_mode=True), nn.AvgPool2d(2, 3, ceil_mode=True), nn.Sigmoid()
    ),
}
RESIZED = {
    "nearest": nn.Upsample(scale_factor=2),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "a size": nn.Upsample(size=(5, 9), mode="bilinear"),
    "smaller": nn.Upsample(scale_factor=0.5, mode="bilinear"),
}


def exported(layer: nn.Module, x: torch.Tensor, **settings) -> onnx.ModelProto:
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if settings.pop("dynamo"):
            return torch.onnx.export(
                layer, (x,), dynamo=True, input_names=["x"], output_names=["y"], verbose=False
            ).model_proto
        buffer = BytesIO()
        torch.onnx.export(layer, (x,), buffer, dynamo=False, input_names=["x"], output_names=["y"], **settings)
    return onnx.load_from_string(buffer.getvalue())


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.mark.parametrize("size", [4, 7])
@pytest.mark.parametrize("path", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", POOLS)
def test_pools_that_round_upwards(name, path, size):
    layer, x = POOLS[name], torch.randn(2, 3, size, size + 1, generator=torch.Generator().manual_seed(0))
    model = exported(layer, x, dynamo=path == "dynamo", **({} if path == "dynamo" else {"opset_version": 13}))
    leaf = x.double().requires_grad_()
    y = layer(leaf)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(g.double())
    got = run(add_gradients(model, ["x"]), {"x": x.numpy(), "ct_y": g.numpy()})
    np.testing.assert_allclose(got["y"], y.detach(), atol=1e-5)
    np.testing.assert_allclose(got["d_x"], leaf.grad, atol=1e-5)


@pytest.mark.parametrize("opset", [9, 10, 11])
@pytest.mark.parametrize("name", RESIZED)
def test_resizing_is_that_of_the_opset_that_it_was_exported_at(name, opset):
    """Up to 10 that is not torch's own: the graph's y and its exact differences are the truth."""
    x = torch.randn(1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    try:
        model = exported(RESIZED[name], x, dynamo=False, opset_version=opset)
    except torch.onnx.OnnxExporterError:
        pytest.skip(f"torch does not export it at opset {opset}")
    if model.graph.node[-1].op_type == "Upsample" and name == "smaller":
        pytest.skip("no runtime takes an Upsample that makes smaller")
    feeds = {"x": x.numpy()}
    before = run(model, feeds)["y"]
    g = np.random.default_rng(0).standard_normal(before.shape).astype(np.float32)
    got = run(add_gradients(model, ["x"]), feeds | {"ct_y": g})
    np.testing.assert_array_equal(got["y"], before)
    units = np.eye(48, dtype=np.float32).reshape(48, 1, 2, 4, 6)
    slopes = [np.sum(g * run(model, {"x": unit})["y"]) for unit in units]  # it is linear
    np.testing.assert_allclose(got["d_x"].ravel(), slopes, atol=1e-5)
