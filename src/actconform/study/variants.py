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

    A kernel that halves the width has twice as many units before it. An output without an activation gets one; where the loss reads logits,
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
    if kernel.output_width == "half":
        layers = _doubled(layers, places)
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


def _doubled(layers: list[Layer], places: set[str]) -> list[Layer]:
    """Return the layers, twice as wide where an activation of `places` reads them."""
    sources = {each.inputs[0] for each in layers if each.name in places}
    readers = {name: [each.name for each in layers if name in each.inputs] for name in sources}
    kinds = {each.name: each.kind for each in layers}
    for name in sources:
        if kinds.get(name) not in WIDTHS or len(readers[name]) > 1:
            raise Unsupported(f"halves the width, and {name} before it cannot be made twice as wide")
    return [
        _with(each, WIDTHS[each.kind], 2 * int(each.settings[WIDTHS[each.kind]])) if each.name in sources else each  # type: ignore[arg-type]
        for each in layers
    ]


def _with(each: Layer, setting: str, value: int | str | Kernel) -> Layer:
    return msgspec.structs.replace(each, settings={**each.settings, setting: value})
