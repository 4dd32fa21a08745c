"""Losses by which a Keras model was compiled, live or stored in its file: for `actconform lint`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from actconform.linting.losses import known_loss
from actconform.text import one_line

if TYPE_CHECKING:
    import keras

    from actconform.types.lint import TrainingLoss


def losses_of_model(model: keras.Model) -> tuple[TrainingLoss, ...]:
    """Return the losses that a live model was compiled with, those of nested lists and dicts among them."""
    return tuple(_losses(getattr(model, "loss", None))) if getattr(model, "compiled", False) else ()


def losses_of_config(config: Any) -> tuple[TrainingLoss, ...]:
    """Return the losses that the config of a `.keras` file states under "compile_config"; () where it states none."""
    compiled = config.get("compile_config") if isinstance(config, dict) else None
    return tuple(_losses(compiled.get("loss"))) if isinstance(compiled, dict) else ()


def _losses(value: Any) -> Iterator[TrainingLoss]:
    """Yield what a loss is that is a name, a class or function of Keras, its config, or several of these."""
    if isinstance(value, str):
        yield from _named(value)
    elif isinstance(value, Mapping) and "class_name" in value:
        config = value.get("config")
        if value["class_name"] == "function":
            yield from _named(str(config))
        else:
            from_logits = isinstance(config, dict) and config.get("from_logits") is True
            yield from _named(str(value["class_name"]), from_logits=from_logits)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _losses(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _losses(part)
    elif callable(value):
        function = getattr(value, "fn", value)
        settings = getattr(value, "_fn_kwargs", None) or {}
        name = type(value).__name__ if function is not value else getattr(value, "__name__", "")
        yield from _named(name, from_logits=settings.get("from_logits") is True)


def _named(name: str, *, from_logits: bool = False) -> Iterator[TrainingLoss]:
    place = f"the compiled loss {one_line(name, 60)}" + ("(from_logits=True)" if from_logits else "")
    loss = known_loss(name, place, from_logits=from_logits)
    if loss is not None:
        yield loss
