"""Shipped graphs: parameters are initializers, and the exporter folded them wrongly, or the runtime does as it loads the graph."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform_faulty.graphs import change_parameter, graph_fault, nodes, parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

BLOCK, CNN, ENCODER, STACK = "attention-block", "image-cnn-softmax2", "autoencoder-sigmoid", "linear-stack"
WRONG_NUMBERS = {"constants": True, "findings": "scaled-error", "tensor": "y"}


def parameter_fault(
    into: str, name: str, what: str, subject: str, layers: Sequence[str], of_layer: str, change: Callable[[Any], Any]
) -> None:
    """Register the fault that changes the parameter `of_layer` of each of `layers`, and with it the numbers of y."""

    def inject(model: ModelProto) -> None:
        for layer in layers:
            change_parameter(model, layer, of_layer, change)

    graph_fault(into, name, what, f"{subject}/value/f32", **WRONG_NUMBERS)(inject)


def in_256_steps(value: NDArray[Any]) -> NDArray[Any]:
    step = np.abs(value).max() / 127
    return np.round(value / step) * step


parameter_fault(
    "export", "weights-in-f16", "weights are stored with the precision of float16",
    STACK, ("dense1", "dense2", "dense3"), "weight", np.float16,
)  # fmt: skip
parameter_fault(
    "export", "weights-in-int8", "weights are rounded to 256 steps, as a quantization would",
    "mlp-relu", ("dense1", "dense2", "dense3", "dense4", "dense5", "head"), "weight", in_256_steps,
)  # fmt: skip
parameter_fault(
    "export", "weight-not-transposed", "the square kernel of attention's output is kept without its transposition",
    BLOCK, ("attention",), "out_proj.weight", np.transpose,
)  # fmt: skip
parameter_fault(
    "export", "kernel-turned", "a convolution's kernel is turned, as convolving has it, and not correlating",
    ENCODER, ("conv1",), "weight", lambda value: value[..., ::-1],
)  # fmt: skip
parameter_fault(
    "export", "bias-lost", "the bias of the last layer is folded to 0",
    STACK, ("dense3",), "bias", np.zeros_like,
)  # fmt: skip
parameter_fault(
    "export", "initial-statistics", "the running variance is the one before training, 1",
    CNN, ("norm1",), "running_var", np.ones_like,
)  # fmt: skip
parameter_fault(
    "ort", "prepacked-in-f16", "weights that are constants are packed with the precision of float16",
    STACK, ("dense1", "dense2", "dense3"), "weight", np.float16,
)  # fmt: skip
parameter_fault(
    "ort", "norm-folded-without-epsilon", "batch normalization is folded into constants without its epsilon",
    CNN, ("norm1", "norm2"), "running_var", lambda value: value - np.float32(1e-3),
)  # fmt: skip
parameter_fault(
    "ort", "bias-fused-to-relu", "a constant bias fused into a convolution is clipped at 0 as its output is",
    ENCODER, ("conv1", "conv2", "conv3"), "bias", lambda value: np.maximum(value, 0.0),
)  # fmt: skip


@graph_fault(
    "export", "initializers-exchanged", "two initializers of one shape are exchanged",
    f"{CNN}/value/f32", **WRONG_NUMBERS,
)  # fmt: skip
def initializers_exchanged(model: ModelProto) -> None:
    scale, mean = parameter(model, "norm2", "weight"), parameter(model, "norm2", "running_mean")
    if scale is not None and mean is not None:
        scale.raw_data, mean.raw_data = mean.raw_data, scale.raw_data


@graph_fault(
    "export", "initializers-merged", "layers of one shape share the weights of the first",
    "mlp-relu/value/f32", **WRONG_NUMBERS,
)  # fmt: skip
def initializers_merged(model: ModelProto) -> None:
    first, second = parameter(model, "dense2", "weight"), parameter(model, "dense4", "weight")
    if first is not None and second is not None:
        for node in nodes(model, "Gemm"):
            node.input[:] = [first.name if name == second.name else name for name in node.input]


@graph_fault(
    "export", "target-kept", "the target is left among the inputs, though nothing reads it",
    f"{STACK}/value/f32", constants=True, findings="names",
)  # fmt: skip
def target_kept(model: ModelProto) -> None:
    target = model.graph.input.add()
    target.CopyFrom(model.graph.input[0])
    target.name = "target"


@graph_fault(
    "export", "shipped-batch-fixed", "the shipped graph takes the batch alone that it was exported at",
    "blobs-mlp/value/f32", constants=True, findings="shape",
)  # fmt: skip
def shipped_batch_fixed(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
