"""Losses that a module holds among its attributes, by which it is trained: for `actconform lint`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import msgspec
import torch

from actconform.linting.losses import known_loss
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.types.lint import TrainingLoss

LOSSES = torch.nn.modules.loss.__name__
# Functions of torch.nn.functional by the class that computes the same.
_FUNCTIONS = {
    "cross_entropy": "CrossEntropyLoss",
    "nll_loss": "NLLLoss",
    "binary_cross_entropy": "BCELoss",
    "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
    "mse_loss": "MSELoss",
    "l1_loss": "L1Loss",
    "huber_loss": "HuberLoss",
    "smooth_l1_loss": "SmoothL1Loss",
}


def training_losses(module: torch.nn.Module) -> tuple[TrainingLoss, ...]:
    """Return the losses of torch.nn among the submodules of a module, and the functions of torch.nn.functional among its attributes."""
    losses = (known_loss(name, f"{attribute} ({name})") for name, attribute in _held(module))
    return tuple(msgspec.structs.replace(loss, certain=False) for loss in losses if loss is not None)


def _held(module: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the class of each loss with the attribute that holds it."""
    for path, part in module.named_modules():
        name = getattr(part, "original_name", type(part).__name__)
        if path and (
            type(part).__module__ == LOSSES
            or (isinstance(part, torch.jit.ScriptModule) and hasattr(torch.nn, str(name)))
        ):
            yield str(name), one_line(path, 80)
        if isinstance(part, torch.jit.ScriptModule):
            continue
        for attribute, value in vars(part).items():
            if (
                inspect.isfunction(value)
                and value.__module__ == torch.nn.functional.__name__
                and value.__name__ in _FUNCTIONS
            ):
                yield _FUNCTIONS[value.__name__], one_line(f"{path}.{attribute}".lstrip("."), 80)
