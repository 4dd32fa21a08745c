"""Opens what a user names: a factory of a Keras model, or a file of one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from actconform import SourceError, Unsupported
from actconform.plugin.user_factory import described, frameworks_of, made_by_factory
from actconform_keras.keras_file import load_keras_file
from actconform_keras.model_signature import signature_of
from actconform_keras.saved_model import open_saved_model
from actconform_keras.tflite import open_tflite
from actconform_keras.trained_model import KerasTrained

if TYPE_CHECKING:
    from actconform.plugin.trained_model import TrainedModel
    from actconform.types.trained import TrainedSource

# What a factory may give that another framework takes, by the package of its class.
_FOREIGN = {
    "torch": "a torch module",
    "jax": "a function of JAX",
    "jaxlib": "a function of JAX",
    "flax": "a Flax model",
    "equinox": "an Equinox model",
    "tf_keras": "a model of Keras 2 (tf_keras), which this plugin does not open",
}


def open_source(source: TrainedSource, wanted_backend: str = "") -> TrainedModel:
    """Return the model; `wanted_backend` is the one of Keras that the user's environment names, which this process does not run."""
    match source.kind:
        case "factory":
            notes = (
                (f"keras runs on tensorflow here, not on {wanted_backend} as KERAS_BACKEND says",)
                if wanted_backend
                else ()
            )
            result = made_by_factory(source, _is_any_model)
            model, example = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
            return opened(model, example, source.text, notes)
        case "keras":
            loaded, losses = load_keras_file(source)
            return KerasTrained(loaded, signature_of(loaded, None, Path(source.text).name), losses=losses)
        case "saved-model":
            return open_saved_model(source)
        case "tflite":
            return open_tflite(source)
        case _:
            raise Unsupported(f"keras opens no {source.kind}")


def adopted(model: object, example: object | None) -> TrainedModel:
    """Return a model of this process, open. Raises `Unsupported` where Keras is not imported, or runs on another backend."""
    if "keras" not in sys.modules:
        raise Unsupported(f"{described(model)} is no Keras model")
    import keras

    if isinstance(model, keras.Model) and keras.config.backend() != "tensorflow":
        raise Unsupported(
            f"keras runs on {keras.config.backend()} in this process: models are opened on tensorflow alone"
        )
    return opened(model, example, "the model")


def opened(model: object, example: object | None, text: str, notes: tuple[str, ...] = ()) -> TrainedModel:
    """Return a live Keras model, open. Raises Unsupported for a model of another framework, SourceError for what is no model."""
    import keras

    if isinstance(model, keras.Model):
        return KerasTrained(model, signature_of(model, example, text), notes)
    if foreign := _foreign(model):
        raise Unsupported(f"{text} gives {foreign}: {described(model)}")
    if isinstance(model, keras.layers.Layer):
        raise SourceError(f"{text} gives a layer, {described(model)}: give a model, such as keras.Sequential([layer])")
    # A model of another framework may be a function.
    refusal = Unsupported if callable(model) and not isinstance(model, type) else SourceError
    raise refusal(f"{text} gives {described(model)}: wanted a keras.Model, or (model, inputs)")


def asked_backend() -> str:
    """Return the backend of Keras that the environment names where it is another than tensorflow; "" otherwise."""
    backend = os.environ.get("KERAS_BACKEND", "")
    return "" if backend == "tensorflow" else backend


def _is_any_model(value: object) -> bool:
    """Whether it is a model of some framework: no factory, then."""
    import keras

    return isinstance(value, keras.Model) or (not isinstance(value, type) and bool(_foreign(value)))


def _foreign(value: object) -> str:
    """Return of which other framework a model is, in words; "" where it is of none that is known."""
    return next((_FOREIGN[package] for package in frameworks_of(value) if package in _FOREIGN), "")
