"""The gradient of a trained model along a random direction, against central differences, all nodes in float64.

    python tests/onnx_graphs/trained.py MODEL [NAME=1,3,160,160 ...] [--wrt w,c] [--open] [--steps 1e-4,1e-5,1e-6,1e-7]

Shapes are fixed in the graph, or, with --open, only those of the inputs that it is given. Prints one row of the table of
docs/gradients.md: nodes before and after, the derivative by the graph and by differences at the best step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.onnx.nested_graphs import needed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("shapes", nargs="*")
    parser.add_argument("--wrt")
    parser.add_argument("--open", action="store_true")
    parser.add_argument("--steps", default="1e-4,1e-5,1e-6,1e-7")
    asked = parser.parse_args()
    model = onnx.load(asked.model)
    shapes = {
        name: [int(n) for n in dims.split(",")] for name, _, dims in (each.rpartition("=") for each in asked.shapes)
    }
    wrt = asked.wrt.split(",") if asked.wrt else None
    made = add_gradients(model, wrt, shapes=None if asked.open else shapes)
    names = [value.name[2:] for value in made.graph.output if value.name.startswith("d_")]
    feeds = inputs_of(made, shapes, set(names))
    value = forward_part(made, [value.name for value in model.graph.output])
    rng = np.random.default_rng(1)
    cotangents = {
        f"ct_{name}": rng.standard_normal(y.shape).astype(np.float32)
        for name, y in value.forward(feeds).items()
        if any(each.name == f"ct_{name}" for each in made.graph.input)
    }
    got = CorrectlyRoundedEvaluator(made.SerializeToString(), rounding=False).forward(feeds | cotangents)
    directions = {name: rng.choice([-1.0, 1.0], feeds[name].shape) for name in names}
    slope = sum(float(np.sum(got[f"d_{name}"] * directions[name])) for name in names)

    def along(distance: float) -> float:
        moved = {name: feeds[name].astype(np.float64) + distance * directions[name] for name in names}
        y = in_float64(value, feeds | moved)
        return sum(float(np.sum(each.astype(np.float64) * y[name[3:]])) for name, each in cotangents.items())

    steps = [float(step) for step in asked.steps.split(",")]
    measured = min(((along(step) - along(-step)) / (2 * step) for step in steps), key=lambda each: abs(each - slope))
    print(
        f"| {asked.model.name} | {len(model.graph.node)} | {len(made.graph.node)} | {', '.join(names)} "
        f"| {slope:.8g} | {measured:.8g} | {abs(measured / slope - 1):.0e} |"
    )


def inputs_of(made: onnx.ModelProto, shapes: dict[str, list[int]], wrt: set[str]) -> dict[str, np.ndarray]:
    """Return random inputs; initializers that are differentiated by become inputs of their own values."""
    rng, feeds = np.random.default_rng(0), {}
    for tensor in [each for each in made.graph.initializer if each.name in wrt]:
        feeds[tensor.name] = numpy_helper.to_array(tensor)
        if tensor.name not in {value.name for value in made.graph.input}:
            made.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        made.graph.initializer.remove(tensor)
    held = {tensor.name for tensor in made.graph.initializer}
    for value in made.graph.input:
        if value.name in held or value.name in feeds or value.name.startswith("ct_"):
            continue
        described = value.type.tensor_type
        shape = shapes.get(value.name) or [dim.dim_value or 1 for dim in described.shape.dim]
        if described.elem_type == TensorProto.FLOAT:
            feeds[value.name] = (rng.standard_normal(shape) / 2).astype(np.float32)
        else:  # bytes; or a rate of samples
            number = rng.integers(0, 256, shape) if shape else np.array(16000)
            feeds[value.name] = number.astype(helper.tensor_dtype_to_np_dtype(described.elem_type))
    return feeds


def forward_part(made: onnx.ModelProto, outputs: list[str]) -> CorrectlyRoundedEvaluator:
    plain = onnx.ModelProto()
    plain.CopyFrom(made)
    nodes = needed(made.graph.node, outputs)
    for field, kept in (
        ("node", nodes),
        ("input", [value for value in made.graph.input if not value.name.startswith("ct_")]),
        ("output", [value for value in made.graph.output if value.name in outputs]),
    ):
        plain.graph.ClearField(field)
        getattr(plain.graph, field).extend(kept)
    return CorrectlyRoundedEvaluator(plain.SerializeToString(), rounding=False)


def in_float64(runtime: CorrectlyRoundedEvaluator, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Evaluate a graph of float32 at inputs of float64, of which `forward` would take none."""
    values = {**runtime._constants, **{name: np.asarray(each) for name, each in feeds.items()}}
    with np.errstate(all="ignore"):
        runtime._run(runtime._steps, values)
    return values


if __name__ == "__main__":
    main()
