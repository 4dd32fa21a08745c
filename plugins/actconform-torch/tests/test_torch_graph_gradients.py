"""Gradients of graphs that torch exports, against torch's autograd and against an export of torch's own backward graph.

The modules are built as published networks are, outside of the catalog. Autograd computes in float64, graphs in float32,
where a gradient is a sum of n products, each passed through some twenty layers: errors grow as sqrt(n) 2^-24 with n up to
a few thousand, that is, to a few 1e-6 of a tensor's greatest element. A wrong term is off by 1e-2 or more.
"""

from __future__ import annotations

import logging
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

from actconform.onnx.grad.reverse_mode import add_gradients
from actconform_torch import torch_module as module

torch = module.import_torch()
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402  once torch is known to be there
from torch.nn import functional  # noqa: E402

TOLERANCE = 1e-5
BATCH = 3  # exported with 2, but for the graphs that torch traces at one size


class Residual(nn.Module):
    """The basic block of a ResNet, with a projection where the size changes."""

    def __init__(self, wide: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        projection = nn.Sequential(nn.Conv2d(wide, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        self.skip = projection if stride > 1 else nn.Identity()

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.skip(x))


def resnet() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 7, 2, padding=3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)]
    return nn.Sequential(*stem, Residual(8, 8, 1), Residual(8, 16, 2), *head)


def convolutions(wide: int, channels: int) -> nn.Module:
    layers = [nn.Conv2d(wide, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())


class UNet(nn.Module):
    """Two levels: the inner one goes up by a transposed convolution, the outer one by the nearest neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.deep = convolutions(3, 8), convolutions(8, 8), convolutions(8, 16)
        self.up2 = nn.ConvTranspose2d(16, 8, 2, 2)
        self.up1 = nn.Upsample(scale_factor=2, mode="nearest")
        self.join2, self.join1 = convolutions(16, 8), convolutions(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        wide = self.down1(x)
        middle = self.down2(functional.max_pool2d(wide, 2))
        deep = self.deep(functional.max_pool2d(middle, 2))
        middle = self.join2(torch.cat([middle, self.up2(deep)], dim=1))
        return self.head(self.join1(torch.cat([wide, self.up1(middle)], dim=1)))


class Inverted(nn.Module):
    """The inverted residual of MobileNetV2: widen, filter each channel by itself, narrow."""

    def __init__(self, wide: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = 2 * wide
        self.added = stride == 1 and wide == channels
        self.layers = nn.Sequential(
            nn.Conv2d(wide, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return x + self.layers(x) if self.added else self.layers(x)


def mobilenet() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)]
    return nn.Sequential(*stem, Inverted(8, 8, 1), Inverted(8, 12, 2), Inverted(12, 12, 1), *head)


class Encoder(nn.Module):
    """A vision transformer: patches with their positions, two encoder layers, the mean of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 16, 16))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 4, 32, 0.0, kind, batch_first=True, norm_first=kind == "gelu")
            for kind in ("gelu", "relu")
        )
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(dim=1))


MODULES = {"resnet": resnet, "unet": UNet, "mobilenet": mobilenet, "encoder": Encoder}


class Drawn(NamedTuple):
    """A module with random weights and statistics, its inputs and parameters, a cotangent, and float64 gradients."""

    module: nn.Module
    tensors: dict[str, torch.Tensor]
    cotangent: torch.Tensor
    truth: dict[str, np.ndarray]

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in (*self.tensors.items(), ("ct_y", self.cotangent))}


@cache
def drawn(name: str) -> Drawn:
    torch.manual_seed(5)
    made = MODULES[name]().eval()
    for key, tensor in (*made.named_parameters(), *made.named_buffers()):
        if key.endswith("running_var") or (key.endswith("weight") and tensor.ndim == 1):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif key.endswith(("bias", "running_mean")):
            nn.init.normal_(tensor, 0.0, 0.3)
    tensors = {"x": torch.randn(BATCH, 3, 16, 16)} | {key: one.detach() for key, one in made.named_parameters()}
    cotangent = torch.randn(made(tensors["x"]).shape)
    wide = {key: tensor.double().requires_grad_() for key, tensor in tensors.items()}
    made.double()
    y = torch.func.functional_call(made, {key: wide[key] for key in wide if key != "x"}, (wide["x"],))
    found = torch.autograd.grad(y, list(wide.values()), cotangent.double())
    made.float()
    truth = {f"d_{key}": one.numpy() for key, one in zip(wide, found, strict=True)}
    return Drawn(made, tensors, cotangent, truth)


class Called(nn.Module):
    """A module whose parameters are arguments: exporters fold those that are constants into each other."""

    def __init__(self, of: nn.Module) -> None:
        super().__init__()
        self.names, self.of = [key for key, _ in of.named_parameters()], [of]  # in a list it is no submodule

    def forward(self, x, parameters):
        return torch.func.functional_call(self.of[0], dict(zip(self.names, parameters, strict=True)), (x,))


def exported(what: Any, samples: tuple[Any, ...], inputs: list[str], outputs: list[str], shapes: Any) -> Any:
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    program = torch.onnx.export(
        what,
        samples,
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=inputs,
        output_names=outputs,
        verbose=False,
    )
    return program.model_proto


def forward_graph(case: Drawn) -> onnx.ModelProto:
    x, *parameters = case.tensors.values()
    shapes = ({0: torch.export.Dim("batch")}, [None] * len(parameters))
    return exported(Called(case.module).eval(), (x[:2], parameters), list(case.tensors), ["y"], shapes)


@cache
def gradients(name: str) -> dict[str, np.ndarray]:
    """Return what ONNX Runtime makes of the exported graph with gradients added."""
    case = drawn(name)
    return run(add_gradients(forward_graph(case), list(case.tensors), keep_outputs=False), case.feeds)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    taken = {one.name: feeds[one.name] for one in session.get_inputs()}
    return dict(zip(names, session.run(names, taken), strict=True))


def check_close(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Every tensor within TOLERANCE of its greatest element; a gradient that is zero by theory has none."""
    assert set(got) == set(wanted)
    for name, truth in wanted.items():
        assert (got[name].dtype, got[name].shape) == (np.float32, truth.shape), name
        limit = TOLERANCE * max(float(np.abs(truth).max()), 0.1)
        np.testing.assert_allclose(got[name], truth, rtol=0, atol=limit, err_msg=name)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("name", MODULES)
def test_gradients_of_an_export_are_those_of_autograd(name: str) -> None:
    check_close(gradients(name), drawn(name).truth)


def convolution_backward(g, x, w, _, stride, padding, dilation, transposed, added, groups, wanted):  # noqa: PLR0917
    """Return dx, dw and db in terms of convolutions: the kernel's gradient is one of the input by the cotangent."""
    convolve = torch.ops.aten.convolution.default
    dims = range(2, x.dim())
    flat = [0] * len(dims)
    if transposed:
        dx = convolve(g, w, None, stride, padding, dilation, False, flat, groups) if wanted[0] else None
        slid, by = g, x
    else:
        reached = [(g.shape[i] - 1) * stride[i - 2] + dilation[i - 2] * (w.shape[i] - 1) + 1 for i in dims]
        missed = [x.shape[i] + 2 * padding[i - 2] - reached[i - 2] for i in dims]
        dx = convolve(g, w, None, stride, padding, dilation, True, missed, groups) if wanted[0] else None
        slid, by = x, g
    # Images take the place of channels, so that a convolution sums over them; each group has its own.
    images, sizes = slid.shape[0], slid.shape[2:]
    by_group = slid.reshape(images, groups, -1, *sizes).transpose(0, 2).reshape(-1, groups * images, *sizes)
    dw = convolve(by_group, by.transpose(0, 1), None, dilation, padding, stride, False, flat, groups).transpose(0, 1)
    for i in dims:
        dw = dw.narrow(i, 0, w.shape[i])
    return dx, dw, g.sum([0, *dims]) if wanted[2] else None


def max_pool_backward(g, x, kernel, stride, padding, dilation, ceil_mode, indices):  # noqa: PLR0917
    flat = torch.zeros_like(x).flatten(2)
    return flat.scatter_add(2, indices.flatten(2), g.flatten(2)).reshape(x.shape)


def nearest_backward(g, size, input_size, *scales):
    images, channels, rows, columns = input_size
    return g.reshape(images, channels, rows, size[0] // rows, columns, size[1] // columns).sum((3, 5))


def decompositions() -> dict[Any, Any]:
    """Return what takes torch's backward operators apart into those that torch.onnx knows."""
    aten = torch.ops.aten
    return {
        **torch.export.default_decompositions(),
        **torch._decomp.get_decompositions([aten.native_batch_norm_backward.default]),
        aten.convolution_backward.default: convolution_backward,
        aten.max_pool2d_with_indices_backward.default: max_pool_backward,
        aten.upsample_nearest2d_backward.default: nearest_backward,
    }


def backward_graph(case: Drawn) -> onnx.ModelProto:
    """Return the graph that torch's own differentiation gives, with the inputs and outputs of one of ours."""
    from torch.fx.experimental.proxy_tensor import make_fx

    called = Called(case.module)

    def backward(x, parameters, g):
        leaves = [tensor.detach().requires_grad_() for tensor in (x, *parameters)]
        return torch.autograd.grad(called(leaves[0], leaves[1:]), leaves, g)

    x, *parameters = case.tensors.values()
    samples = (x, parameters, case.cotangent)
    # PyTorch's fused attention has a backward operator of its own; its definition has none.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        traced = make_fx(backward, decomposition_table=decompositions())(*samples)
    outputs = [f"d_{key}" for key in case.tensors]
    return exported(traced, samples, [*case.tensors, "ct_y"], outputs, None)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("name", MODULES)
def test_the_exported_graph_of_torchs_own_gradients_agrees(name: str) -> None:
    check_close(gradients(name), run(backward_graph(drawn(name)), drawn(name).feeds))


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("name", ["resnet", "encoder"])
def test_parameters_that_torchscript_makes_initializers_have_gradients(name: str) -> None:
    case, written = drawn(name), BytesIO()
    torch.onnx.export(
        case.module,
        (case.tensors["x"][:2],),
        written,
        dynamo=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch"}},
        do_constant_folding=False,  # it would transpose weights
        training=torch.onnx.TrainingMode.PRESERVE,  # by default normalizations become part of convolutions
    )
    model = onnx.load_from_string(written.getvalue())
    parameters = {tensor.name for tensor in model.graph.initializer}.intersection(case.tensors)
    assert parameters == case.tensors.keys() - {"x"}
    check_close(run(add_gradients(model, ["x", *parameters], keep_outputs=False), case.feeds), case.truth)
