"""What Keras computes with: how each of its backends takes arrays, differentiates, refuses, and says that it is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Unsupported
from actconform_keras.keras_module import keras_on

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from actconform.types import Bundle

    Tensor = Any  # of whichever framework
    Named = Mapping[str, Tensor]
    Outputs = dict[str, Tensor]

# How TensorFlow, XLA, or oneDNN on an older processor says that an operation has no kernel for a dtype or none at all.
NO_KERNEL = (
    "is not in the list of allowed values",
    "Could not find device for node",
    "Could not satisfy device specification",
    "No OpKernel was registered",
    "could not create a primitive",
    "Detected unsupported operations when trying to compile graph",
    "tf2xla conversion failed",
    "Unsupported dtype",
)


class Engine(ABC):
    """One way in which Keras computes. Tensors are those of its framework, by name; `by` follows what it computes, in words."""

    by = ""

    def tensors(self, arrays: Bundle) -> Outputs:
        """Return the arrays as tensors where they are computed on."""
        from keras import ops

        return {name: ops.convert_to_tensor(array) for name, array in arrays.items()}

    def arrays(self, tensors: Named) -> dict[str, NDArray[Any]]:
        """Return the tensors as arrays that have memory of their own."""
        from keras import ops

        return {name: ops.convert_to_numpy(tensor) for name, tensor in tensors.items()}

    def compiled(self, function: Callable[..., Outputs]) -> Callable[..., Outputs]:
        """Return what is called instead of `function`, which takes and gives tensors: as it is, where it runs eagerly."""
        return function

    @abstractmethod
    def gradients(
        self, value: Callable[[Named], Tensor], sources: Named, cotangent: Tensor
    ) -> dict[str, Tensor | None]:
        """Return the cotangent pulled back through `value` to each source; None where no path leads there."""

    @abstractmethod
    def whole(self, compute: Callable[..., Outputs], *arguments: object) -> Callable[[], Outputs]:
        """Return what calls `compute`, returns when all is computed, and raises `Unsupported` for what there is no kernel for."""

    def close(self) -> None:  # noqa: B027  most keep nothing
        """Free what was compiled for a program, as far as the framework lets it be freed."""


class TensorFlow(Engine):
    """TensorFlow, eagerly, with tf.GradientTape, on the device of that name; None is wherever it puts things."""

    refusing: tuple[type[Exception], ...] = ()  # beside OpError

    def __init__(self, device: str | None = None) -> None:
        self._device = device

    def tensors(self, arrays: Bundle) -> Outputs:
        tf = keras_on("tensorflow")
        with tf.device(self._device):
            return {name: tf.convert_to_tensor(array) for name, array in arrays.items()}

    def arrays(self, tensors: Named) -> dict[str, NDArray[Any]]:
        # Of a tensor without axes TensorFlow makes a number, no array.
        return {name: np.asarray(tensor.numpy()) for name, tensor in tensors.items()}

    def gradients(
        self, value: Callable[[Named], Tensor], sources: Named, cotangent: Tensor
    ) -> dict[str, Tensor | None]:
        tf = keras_on("tensorflow")
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            y = value(sources)
        pulled = tape.gradient(y, sources, output_gradients=cotangent)
        # The gradient of a choice of rows comes as these rows.
        return {name: d if d is None else tf.convert_to_tensor(d) for name, d in pulled.items()}

    def whole(self, compute: Callable[..., Outputs], *arguments: object) -> Callable[[], Outputs]:
        tf = keras_on("tensorflow")
        device, refusing = self._device, (tf.errors.OpError, *self.refusing)

        def done() -> Outputs:
            try:
                return compute(*arguments)
            except refusing as error:
                raise _refusal(error) from error

        def done_there() -> Outputs:
            with tf.device(device):
                outputs = done()
            tf.test.experimental.sync_devices()
            return outputs

        return done if device is None else done_there


class Xla(TensorFlow):
    """TensorFlow's XLA: tf.function(jit_compile=True) of all that is asked for, the tape within; each shape is compiled anew.

    TensorFlow keeps what it compiled until the process ends.
    """

    by = ", by tf.function(jit_compile=True)"
    refusing = (ValueError,)  # so it says while it traces

    def compiled(self, function: Callable[..., Outputs]) -> Callable[..., Outputs]:
        compiled: Callable[..., Outputs] = keras_on("tensorflow").function(function, jit_compile=True, autograph=False)
        return compiled


class Jax(Engine):
    """JAX, operation by operation as Keras calls it, with jax.vjp."""

    def gradients(
        self, value: Callable[[Named], Tensor], sources: Named, cotangent: Tensor
    ) -> dict[str, Tensor | None]:
        _, pull_back = keras_on("jax").vjp(value, dict(sources))
        (pulled,) = pull_back(cotangent)
        return dict(pulled)

    def whole(self, compute: Callable[..., Outputs], *arguments: object) -> Callable[[], Outputs]:
        wait = keras_on("jax").block_until_ready

        def done() -> Outputs:
            try:
                outputs: Outputs = wait(compute(*arguments))
            except NotImplementedError as error:
                raise Unsupported(str(error).splitlines()[0]) from error
            return outputs

        return done

    def close(self) -> None:
        # One program for each operation and shape, some MB a kernel: all kernels would take many GB.
        keras_on("jax").clear_caches()


class Torch(Engine):
    """PyTorch, eagerly, with torch.autograd."""

    def gradients(
        self, value: Callable[[Named], Tensor], sources: Named, cotangent: Tensor
    ) -> dict[str, Tensor | None]:
        watched = {name: tensor.detach().requires_grad_() for name, tensor in sources.items()}
        pulled = keras_on("torch").autograd.grad(value(watched), list(watched.values()), cotangent, allow_unused=True)
        return dict(zip(watched, pulled, strict=True))

    def whole(self, compute: Callable[..., Outputs], *arguments: object) -> Callable[[], Outputs]:
        def done() -> Outputs:
            try:
                return compute(*arguments)
            except RuntimeError as error:
                words = str(error).splitlines()[0] if str(error) else ""
                if "not implemented" in words:
                    raise Unsupported(words) from error
                raise

        return done


def vjp_artifact(gradients: Mapping[str, Tensor | None], what: str, output: str) -> Outputs:
    """Return the gradients as "d_<name>"; raise RuntimeError where no path leads from the output of `what` to one."""
    for name, gradient in gradients.items():
        if gradient is None:
            raise RuntimeError(f"{what}: no path from {output} back to {name}, so there is no d_{name}")
    return {f"d_{name}": gradient for name, gradient in gradients.items()}


def _refusal(error: Exception) -> Exception:
    """Return `error` itself, or `Unsupported` in its words where TensorFlow says that it has no such kernel."""
    unimplemented = isinstance(error, keras_on("tensorflow").errors.UnimplementedError)
    if unimplemented or any(words in str(error) for words in NO_KERNEL):
        return Unsupported(str(error).splitlines()[0])
    return error
