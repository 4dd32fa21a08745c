"""A user's JAX model opened: what a factory gives, a flax.nnx or equinox Module or a function of arrays, with its example inputs."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from actconform import SourceError, Unsupported
from actconform.plugin.user_factory import described, frameworks_of, made_by_factory
from actconform_jax.trained_weights import is_array, is_nnx_module, is_pytree_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.types.trained import TrainedSource

OTHERS = {
    "torch": "a torch module",
    "keras": "a Keras model",
    "tf_keras": "a Keras model",
    "tensorflow": "a TensorFlow model",
}
WANTED = (
    "wanted a flax.nnx or equinox Module, or a function of arrays such as functools.partial(apply, weights), alone or in a tuple with "
    "its example inputs"
)


class Opened(NamedTuple):
    """A model, ready to be called, with the example inputs that came with it."""

    model: Callable[..., Any]
    example: object = None
    notes: tuple[str, ...] = ()


def opened_source(source: TrainedSource) -> Opened:
    """Return what a factory gives, opened; raise SourceError or Unsupported as `Backend.open_trained` does."""
    if source.kind != "factory":
        raise Unsupported(f"jax opens no {source.kind}")
    return opened_object(made_by_factory(source, _is_model), name=source.text)


def opened_object(value: Any, example: object = None, name: str = "the model") -> Opened:
    """Return a model of the user's, or a tuple of one and example inputs, opened: not copied."""
    if isinstance(value, tuple | list) and len(value) == 2 and callable(value[0]):
        value, example = value[0], value[1] if example is None else example
    if refusal := _refusal(value, name):
        raise refusal
    notes: tuple[str, ...] = ()
    if is_nnx_module(value) and _is_training(value):
        notes = ("it was left in training mode: it is run as in inference, after eval(), unless training is asked for",)
    return Opened(value, example, notes)


def _is_model(value: object) -> bool:
    """Whether a name of the user's is the model itself, not a factory of it."""
    if isinstance(value, functools.partial):
        return any(map(is_array, jax.tree_util.tree_leaves((value.args, value.keywords))))
    return is_nnx_module(value) or is_pytree_model(value)


def _refusal(value: object, name: str) -> Exception | None:
    """Return why a value is no model of JAX's; None where it is one."""
    framework = next((OTHERS[package] for package in frameworks_of(value) if package in OTHERS), "")
    if framework:
        return Unsupported(f"{name} gives {framework} ({described(value)}), not JAX's")
    linen = sys.modules.get("flax.linen")
    if linen is not None and isinstance(value, linen.Module):
        words = f"{described(value)}, a module of flax.linen without its variables: give functools.partial(model.apply, variables)"
    elif isinstance(value, type):
        words = f"the class {value.__qualname__}, not a model: call it; {WANTED}"
    elif callable(value):
        return None
    elif isinstance(value, tuple | list):
        kinds = ", ".join(described(part) for part in value[:4])
        words = f"{described(value)} of {len(value)} ({kinds}): {WANTED}"
    elif isinstance(value, dict) and any(map(is_array, jax.tree_util.tree_leaves(value))):
        words = f"weights alone, a dict of {len(value)}: bind them to the function; {WANTED}"
    else:
        words = f"{described(value)}: {WANTED}"
    return SourceError(f"{name} gives {words}")


def _is_training(model: Any) -> bool:
    modes = [vars(module) for _, module in sys.modules["flax.nnx"].iter_modules(model)]
    return any(mode.get("deterministic") is False or mode.get("use_running_average") is False for mode in modes)
