"""What a Keras model holds while it is called in another precision or in training: swapped before, as it was after.

Keras says no public way to run a model in another precision, so this file reaches into its layers; nothing else does.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Unsupported
from actconform_keras.model_signature import functional_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras

    from actconform.types.trained import Precision, RunMode

# The policy of each precision, and the dtype of weights where it is another than as trained.
_POLICIES: dict[Precision, tuple[str, str]] = {
    "float64": ("float64", "float64"),
    "float16": ("float16", "float16"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "autocast-float16": ("mixed_float16", ""),
    "autocast-bfloat16": ("mixed_bfloat16", ""),
}
_GLOBAL_SEED = "global_seed_generator"  # the attribute under which Keras keeps it


def layers_of(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the model and all layers within, each once."""
    layers = model._flatten_layers()  # noqa: SLF001  `layers` of a model has those of its first level alone
    return list({id(layer): layer for layer in layers}.values())


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights and buffers of a layer itself, not of layers within; no random states."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]  # noqa: SLF001  public ones add those within


class ModelState:
    """What may change in a model when it is called: weights, statistics, random states. It is never left changed."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._randomness: _Randomness | None = None

    @contextmanager
    def prepared(self, mode: RunMode) -> Iterator[None]:
        """Let the model compute as `mode` says; all is as before at the end.

        Calls in training draw the same random numbers each time. Others go on where the last one ended, so that a model which draws
        numbers that it should not draw shows in two calls.
        """
        layers = layers_of(self._model)
        randomness = _Randomness(layers) if mode.training or self._randomness is None else self._randomness
        if not mode.training:
            self._randomness = randomness
        with ExitStack() as stack:
            for layer in layers:
                _keep_buffers(stack, layer)
            stack.enter_context(randomness.drawn_from())
            if mode.precision != "native":
                _step_by_step(stack)
                policy, dtype = _POLICIES[mode.precision]
                for layer in layers:
                    _swap_policy(stack, layer, policy)
                    if dtype:
                        _swap_input_types(stack, layer, dtype)
                        for variable in own_variables(layer):
                            _swap_variable(stack, variable, dtype)
            yield


def _step_by_step(stack: ExitStack) -> None:
    """Run functions that tf.function compiled step by step: what it compiled holds the weights and types of its first call."""
    import tensorflow as tf

    stack.callback(tf.config.run_functions_eagerly, tf.config.functions_run_eagerly())
    tf.config.run_functions_eagerly(True)  # noqa: FBT003  positional in TensorFlow


def _keep_buffers(stack: ExitStack, layer: keras.layers.Layer) -> None:
    """Give what a call may assign, statistics and states, its value again at the end."""
    import tensorflow as tf

    variables = [variable._value for variable in layer._non_trainable_variables]  # noqa: SLF001
    variables += [value for value in vars(layer).values() if isinstance(value, tf.Variable)]
    for variable in variables:
        if variable is not None:
            stack.callback(variable.assign, tf.identity(variable))


def _swap(stack: ExitStack, owner: object, name: str, value: object) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _swap_policy(stack: ExitStack, layer: keras.layers.Layer, name: str) -> None:
    import keras

    if not keras.backend.is_float_dtype(layer.compute_dtype):
        return  # layers of integers and strings
    policy = layer.dtype_policy
    mode = getattr(policy, "quantization_mode", None)
    if mode:
        config = policy.get_config() | {"source_name": name}
        try:
            wanted = type(policy).from_config(config)
        except (TypeError, ValueError) as error:
            raise Unsupported(
                f"layer {layer.path} is quantized ({mode}) and cannot compute in {name}: {error}"
            ) from error
    else:
        wanted = keras.DTypePolicy(name)
    _swap(stack, layer, "_dtype_policy", wanted)


def _swap_input_types(stack: ExitStack, layer: keras.layers.Layer, dtype: str) -> None:
    """Functional and sequential models cast what they are given to the types of their symbolic inputs and input layers."""
    import keras

    holders: list[Any] = [layer] if isinstance(layer, keras.layers.InputLayer) else []
    if isinstance(layer, keras.Model):
        holders += getattr(functional_of(layer), "_inputs", None) or []
    for holder in holders:
        if keras.backend.is_float_dtype(holder.dtype):
            _swap(stack, holder, "_dtype", dtype)


def _swap_variable(stack: ExitStack, variable: keras.Variable, dtype: str) -> None:
    """Put a copy of `dtype` in place of a variable's value where it holds floats."""
    import keras
    import tensorflow as tf

    value = variable._value  # noqa: SLF001  `value` is cast as the policy says
    if value is not None and value.dtype.name != dtype and keras.backend.is_float_dtype(variable.dtype):
        _swap(stack, variable, "_dtype", dtype)
        _swap(stack, variable, "_value", tf.Variable(tf.cast(value, dtype), trainable=variable.trainable))


class _Randomness:
    """Random states of one's own that begin as those of the model, Keras, Python and NumPy are."""

    def __init__(self, layers: list[keras.layers.Layer]) -> None:
        import keras
        import tensorflow as tf
        from keras.src.backend.common import global_state

        generators = [generator for layer in layers for generator in layer._seed_generators]  # noqa: SLF001  nothing public has them
        states = {id(generator.state): generator.state for generator in generators}
        self._states = [(state._value, tf.identity(state._value)) for state in states.values()]  # noqa: SLF001
        shared = global_state.get_global_attribute(_GLOBAL_SEED)
        self._shared = None
        if shared is not None:
            self._shared = keras.random.SeedGenerator(0)
            self._shared.state.assign(shared.state.value)
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002  layers of users draw from it

    @contextmanager
    def drawn_from(self) -> Iterator[None]:
        """Let layers draw from these states, which move on; those of the process are as before at the end."""
        import tensorflow as tf
        from keras.src.backend.common import global_state

        with ExitStack() as stack:
            for state, value in self._states:
                stack.callback(state.assign, tf.identity(state))
                state.assign(value)
            stack.callback(random.setstate, random.getstate())
            stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
            stack.callback(
                global_state.set_global_attribute, _GLOBAL_SEED, global_state.get_global_attribute(_GLOBAL_SEED)
            )
            random.setstate(self._python)
            np.random.set_state(self._numpy)  # noqa: NPY002
            global_state.set_global_attribute(_GLOBAL_SEED, self._shared)
            try:
                yield
            finally:
                self._states = [(state, tf.identity(state)) for state, _ in self._states]
                self._shared = global_state.get_global_attribute(_GLOBAL_SEED)
                self._python, self._numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
