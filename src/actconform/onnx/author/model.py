"""The authored exporter of models: the ONNX graph that we write of a reference model's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import actconform.onnx.author.layers  # noqa: F401  registers the built-in kinds
from actconform.errors import Unsupported
from actconform.onnx.author.exporter import artifact_of
from actconform.onnx.nodes import BATCH, LAYER_GRAPHS, Nodes, Wiring
from actconform.types.model import LOSS, OUTPUT

if TYPE_CHECKING:
    from actconform.types import Artifact
    from actconform.types.model import Layer, Model


def author_model(model: Model, dtype: str) -> Artifact:
    """Return the graph of `model` at `dtype` ("f32", "f16", "bf16"): standard operators, passed by onnx's checker.

    Its inputs are the model's inputs and all its parameters by name, canonical, the batch dynamic; its outputs are "y",
    "loss", then "layer.NAME" for every layer, channels last. Images are turned to channels first around the operators that
    want them so. `path` reads "composition: MatMul, Add, Relu". Raises `Unsupported` for a kind of layer that has no graph.
    """
    nodes = Nodes(dtype)
    tensors = {model_input.name: model_input.name for model_input in model.inputs}
    shapes = {model_input.name: model_input.shape for model_input in model.inputs} | model.shapes
    for layer in model.layers:
        wiring = Wiring(
            layer, [tensors[name] for name in layer.inputs], [shapes[name] for name in layer.inputs], model.training
        )
        tensors[layer.name] = f"layer.{layer.name}"
        nodes.rename(_written(layer, nodes, wiring), tensors[layer.name])
    for layer_name, output in ((model.output, OUTPUT), (LOSS, LOSS)):
        nodes.rename(nodes.Identity(tensors[layer_name]), output)
    inputs: dict[str, tuple[str | int, ...]] = {
        model_input.name: (BATCH, *model_input.shape) for model_input in model.inputs
    }
    inputs |= {parameter.name: parameter.shape for parameter in model.parameters}
    outputs = [OUTPUT, LOSS, *(tensors[layer.name] for layer in model.layers)]
    return artifact_of(model.name, nodes, inputs, outputs)


def _written(layer: Layer, nodes: Nodes, wiring: Wiring) -> str:
    write = LAYER_GRAPHS.get(layer.kind)
    if write is None:
        raise Unsupported(
            f"layer {layer.name}: no authored graph for kind {layer.kind}: see actconform.onnx.nodes.layer_graph"
        )
    return write(nodes.within(layer.name), wiring)
