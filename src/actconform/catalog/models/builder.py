"""From a list of layers to a checked Model: what does not fit is refused with the layer and the shapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from actconform.catalog.models.layer_kinds import KINDS, LOSSES
from actconform.errors import DescriptionError, ShapeError, near
from actconform.types.model import LOSS, OUTPUT, Input, Layer, Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.types.model import Parameter, Setting, Shape

EXPECTED = {
    "rate": "a number in [0, 1)",
    "epsilon": "a number that is not negative",
    "momentum": "a number in [0, 1]",
    "transposed": "0 or 1",
}
ROLES = ("data", "target", "noise")
DRAWS = ("normal", "uniform", "unit", "softmax", "one-hot", "binary", "gumbel", "mask")
RATE = re.compile(r"0(\.\d+)?")  # a mask's, below 1
NAME = re.compile(r"[a-z][a-z0-9_-]*")


def layer(name: str, kind: str, *inputs: str, **settings: Setting) -> Layer:
    """Return a layer that reads `inputs`; underscores in the names of settings stand as they are."""
    return Layer(name=name, kind=kind, inputs=inputs, settings=settings)


def describe(
    name: str,
    source: str,
    inputs: Sequence[Input],
    layers: Sequence[Layer],
    *,
    output: str,
    batch: int,
    training: bool = False,
) -> Model:
    """Return the model of these layers, each with its defaults filled in, and all shapes and parameters worked out.

    The layers may stand in any order; they are put in one in which each reads only what stands before it. Raises
    DescriptionError, naming the layer, for an unknown kind or setting, a name that is taken or missing, a cycle, shapes that
    do not fit, a model whose only loss is not the layer "loss", an `output` that no layer bears, a layer or input that
    nothing reads, a target that other layers than the loss read, and dropout in training without a mask.
    """
    if type(batch) is not int or batch < 1:
        raise DescriptionError(f"model {name}: its batch is {batch!r}; expected a positive integer")
    shapes: dict[str, Shape] = {}
    for model_input in inputs:
        if model_input.name in shapes:
            raise DescriptionError(f"model {name}: two inputs are called {model_input.name!r}")
        _refuse_input(name, model_input)
        shapes[model_input.name] = model_input.shape
    parameters: list[Parameter] = []
    ordered = _ordered(name, layers, set(shapes))
    filled = []
    for layer in ordered:
        try:
            complete = _complete(layer)
            read = [shapes[source] for source in layer.inputs]
            shapes[layer.name] = KINDS[layer.kind].shape(complete, read)
            parameters += KINDS[layer.kind].parameters(complete, read)
        except ShapeError as error:
            raise DescriptionError(f"model {name}, layer {layer.name} ({layer.kind}): {error}") from error
        filled.append(complete)
    if output not in {layer.name for layer in filled}:
        raise DescriptionError(f"model {name}: output {output!r} is no layer{near(output, [o.name for o in filled])}")
    _refuse_misuse(name, inputs, filled, output=output, training=training)
    return Model(
        name=name,
        source=source,
        inputs=tuple(inputs),
        layers=tuple(filled),
        output=output,
        parameters=tuple(parameters),
        shapes={layer.name: shapes[layer.name] for layer in filled},
        batch=batch,
        training=training,
    )


def _refuse_input(model: str, model_input: Input) -> None:
    """Raise DescriptionError for an input without a way to draw its numbers, or whose name is taken or unfit."""
    label = f"model {model}, input {model_input.name}"
    if model_input.name in (OUTPUT, LOSS):
        raise DescriptionError(
            f"model {model}: an input is called {model_input.name!r}, as what the model gives; rename it"
        )
    if not NAME.fullmatch(model_input.name):
        wanted = "wanted lower case letters, digits, _ and -"
        raise DescriptionError(f"model {model}: an input is called {model_input.name!r}: {wanted}")
    if model_input.role not in ROLES:
        raise DescriptionError(f"{label}: its role is {model_input.role!r}; expected {', '.join(ROLES)}")
    if not model_input.shape or not all(type(size) is int and size > 0 for size in model_input.shape):
        raise DescriptionError(
            f"{label}: its shape without the batch is {model_input.shape}; expected positive integers"
        )
    how, _, rate = model_input.draw.partition(":")
    if how not in DRAWS:
        raise DescriptionError(f"{label}: no way to draw is called {model_input.draw!r}{near(how, list(DRAWS))}")
    if (how == "mask") != bool(rate) or (rate and not RATE.fullmatch(rate)):
        raise DescriptionError(
            f"{label}: it draws {model_input.draw!r}; expected a rate for masks alone, such as mask:0.25"
        )


def _refuse_misuse(name: str, inputs: Sequence[Input], layers: Sequence[Layer], *, output: str, training: bool) -> None:
    """Raise DescriptionError where the parts fit, and do not make a network with an output and a loss."""
    losses = [layer.name for layer in layers if layer.kind in LOSSES]
    if losses != [LOSS] or layers[-1].name != LOSS or output == LOSS:
        expected = f"expected one loss, the last layer, called {LOSS!r}, which is not the output"
        raise DescriptionError(f"model {name}: {expected}; found {losses}, the last layer is {layers[-1].name}")
    targets = {model_input.name for model_input in inputs if model_input.role == "target"}
    read = {source for layer in layers for source in layer.inputs}
    names = [model_input.name for model_input in inputs] + [layer.name for layer in layers]
    unread = [source for source in names if source not in read | {LOSS}]
    if unread:
        raise DescriptionError(f"model {name}: nothing reads {', '.join(unread)}")
    for layer in layers:
        wanted = targets & {layer.inputs[1]} if layer.kind in LOSSES else set()
        if targets & set(layer.inputs) != wanted or (layer.kind in LOSSES and not wanted):
            read_by = f"model {name}, layer {layer.name} ({layer.kind}) reads {', '.join(layer.inputs)}"
            raise DescriptionError(f"{read_by}; expected the loss, and nothing else, to read a target, second")
        if layer.kind == "dropout" and (len(layer.inputs) == 2) != training:
            reason = "in training it reads a mask" if training else "a mask is for training"
            raise DescriptionError(
                f"model {name}, layer {layer.name} (dropout) reads {', '.join(layer.inputs)}: {reason}"
            )


def _complete(layer: Layer) -> Layer:
    """Return the layer with the defaults of its kind filled in; raise ShapeError for what its kind does not know or lacks."""
    kind = KINDS[layer.kind]
    for setting in layer.settings:
        if setting not in kind.settings:
            raise ShapeError(f"unknown setting {setting!r}{near(setting, list(kind.settings))}")
    settings = {**kind.settings, **layer.settings}
    for setting, value in layer.settings.items():
        _refuse_setting(setting, value)
    missing = [setting for setting, value in settings.items() if value is None]
    if missing:
        raise ShapeError(f"setting {', '.join(missing)} is missing")
    if len(layer.inputs) not in kind.inputs:
        raise ShapeError(f"it reads {len(layer.inputs)} inputs; expected {' or '.join(map(str, kind.inputs))}")
    return msgspec.structs.replace(layer, settings=settings)


def _refuse_setting(setting: str, value: Setting) -> None:
    """Raise ShapeError for a value that no layer can have."""
    fits = {
        "units": type(value) is int and value > 0,
        "filters": type(value) is int and value > 0,
        "heads": type(value) is int and value > 0,
        "groups": type(value) is int and value > 0,
        "rate": isinstance(value, float) and 0.0 <= value < 1.0,
        "epsilon": isinstance(value, float) and value >= 0.0,
        "momentum": isinstance(value, float) and 0.0 <= value <= 1.0,
        "transposed": value in (0, 1),
    }
    if not fits.get(setting, True):
        raise ShapeError(f"its setting {setting} is {value!r}; expected {EXPECTED.get(setting, 'a positive integer')}")


def _ordered(model: str, layers: Sequence[Layer], input_names: set[str]) -> list[Layer]:
    """Return the layers in an order of computation, that of the list as far as it is one."""
    names = set(input_names)
    for layer in layers:
        if not NAME.fullmatch(layer.name):
            raise DescriptionError(
                f"model {model}: a layer is called {layer.name!r}: wanted lower case letters, digits, _ and -"
            )
        if layer.name in names:
            raise DescriptionError(f"model {model}: two layers or inputs are called {layer.name!r}")
        names.add(layer.name)
        if layer.kind not in KINDS:
            raise DescriptionError(
                f"model {model}, layer {layer.name}: unknown kind {layer.kind!r}{near(layer.kind, list(KINDS))}"
            )
    for layer in layers:
        for source in layer.inputs:
            if source not in names:
                raise DescriptionError(
                    f"model {model}, layer {layer.name} ({layer.kind}) reads {source!r}, which is nowhere{near(source, sorted(names))}"
                )
    waiting, ready, ordered = list(layers), set(input_names), []
    while waiting:
        following = next((layer for layer in waiting if ready.issuperset(layer.inputs)), None)
        if following is None:
            ring = " -> ".join(f"{layer.name} (reads {', '.join(layer.inputs)})" for layer in waiting)
            raise DescriptionError(f"model {model}: cyclic connection among {ring}")
        waiting.remove(following)
        ready.add(following.name)
        ordered.append(following)
    return ordered
