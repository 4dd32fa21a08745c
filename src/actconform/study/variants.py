"""An experiment with another kernel in one of its roles, so that nothing else differs: data, order of batches, initial parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import msgspec

from actconform.catalog.kernels import KERNELS
from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.layer_kinds import kernel_of
from actconform.errors import DescriptionError, Unsupported
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from actconform.types import Kernel
    from actconform.types.model import Layer, Model
    from actconform.types.training import Experiment

Role: TypeAlias = Literal["hidden", "output"]
ROLES: tuple[Role, ...] = get_args(Role)
WIDTHS = {
    "dense": "units",
    "conv2d": "filters",
    "conv2d-transpose": "filters",
}  # of layers that can be made twice as wide
FROM_LOGITS = "-from-logits"
ADDED = "study-output"  # the activation that is put behind a linear output


def study_variant(experiment: Experiment, role: Role, kernel: Kernel, seed: int) -> Experiment:
    """Return the experiment with `kernel` in place of every hidden activation, or of the output's, and with another seed.

    A kernel that halves the width has twice as many units before it, and half as many come before one in place of such a kernel. An output without an activation gets one; where the loss reads logits,
    which is a softmax or sigmoid with the loss of probabilities, it becomes that loss. Claims are left out: they are about the kernels that the experiment has. Raises Unsupported, saying why, where the kernel cannot
    be there.
    """
    _refuse_unfit(kernel)
    changed = tuple(_replaced(model, role, kernel) for model in (experiment.model, experiment.evaluation))
    return msgspec.structs.replace(
        experiment, model=changed[0], evaluation=changed[1], claims=(), judged=0, seed=experiment.seed + seed
    )


def hidden_activations(model: Model) -> list[Layer]:
    """Return the activations of a model but for its output's, in the order of computation."""
    return [each for each in model.layers if each.kind == "activation" and each.name != _output(model).name]


def kernel_names(model: Model, role: Role) -> str:
    """Return the kernels that a model has in a role, "relu, softmax"; "none" without any."""
    output = _output(model)
    if role == "output" and model.layers[-1].kind.endswith(FROM_LOGITS):
        return "softmax" if model.layers[-1].kind.startswith("categorical") else "sigmoid"
    layers = hidden_activations(model) if role == "hidden" else [output] if output.kind == "activation" else []
    return ", ".join(dict.fromkeys(kernel_of(each).name for each in layers)) or "none"


def _output(model: Model) -> Layer:
    return model.layer(model.output)


def _refuse_unfit(kernel: Kernel) -> None:
    if kernel.inputs != ("x",):
        raise Unsupported(f"takes {' and '.join(kernel.inputs[1:])} beside x")
    if not kernel.differentiable:
        raise Unsupported("has no gradient")
    if kernel.output_width == "one":
        raise Unsupported("makes one number of a row")
    if kernel.axis != -1:
        raise Unsupported(f"works along axis {kernel.axis}, not along the units")


def _replaced(model: Model, role: Role, kernel: Kernel) -> Model:
    layers, output = list(model.layers), model.output
    if role == "output" and _output(model).kind != "activation":
        output, loss = ADDED, layers[-1]
        layers[-1] = layer(LOSS, loss.kind.removesuffix(FROM_LOGITS), ADDED, loss.inputs[1])
        layers.insert(-1, layer(ADDED, "activation", model.output, kernel="linear"))
        places = {ADDED}
    else:
        places = {model.output} if role == "output" else {each.name for each in hidden_activations(model)}
    if not places:
        raise Unsupported("the experiment has no hidden activation")
    setting = kernel.name if KERNELS.get(kernel.name) == kernel else kernel
    layers = [_with(each, "kernel", setting) if each.name in places else each for each in layers]
    layers = _fitted(model, layers, places, 2 if kernel.output_width == "half" else 1)
    try:
        described = describe(
            model.name,
            model.source,
            model.inputs,
            layers,
            output=output,
            batch=model.batch,
            training=model.training,
        )
    except DescriptionError as error:
        raise Unsupported(str(error)) from error
    return described


def _fitted(model: Model, layers: list[Layer], places: set[str], factor: int) -> list[Layer]:
    """Return the layers, those that an activation of `places` reads `factor` times as wide as it was, so that all others stay as they are."""
    widths = {}
    for each in layers:
        if each.name in places:
            source = each.inputs[0]
            width = factor * model.shapes.get(each.name, model.shapes[model.output])[-1]
            if model.shapes.get(source, (0,))[-1] != width:
                widths[source] = width
    for name in widths:
        read = sum(name in each.inputs for each in layers)
        if name not in model.shapes or model.layer(name).kind not in WIDTHS or read > 1:
            raise Unsupported(f"needs another width than {name} before it has, which cannot be changed")
    return [_with(each, WIDTHS[each.kind], widths[each.name]) if each.name in widths else each for each in layers]


def _with(each: Layer, setting: str, value: int | str | Kernel) -> Layer:
    return msgspec.structs.replace(each, settings={**each.settings, setting: value})
