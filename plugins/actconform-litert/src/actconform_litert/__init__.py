"""LiteRT for actconform: the backend litert, Keras's functions converted to TFLite graphs, and the register of what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from actconform import Library, Program, Unsupported, hookimpl
from actconform.machine.cpu import cpu_capability
from actconform.plugin.framework import FrameworkBackend, fate_of_subnormals, thread_count, versions
from actconform.plugin.import_failure import imported
from actconform_keras.backend import KerasProgram
from actconform_keras.engines import TensorFlow
from actconform_keras.keras_module import KERAS_DTYPES, keras_on
from actconform_keras.kernels import implement
from actconform_keras.models import KerasModelProgram
from actconform_keras.primitives import primitives

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Kernel, Model
    from actconform_keras.engines import Named


INSTALL = "pip install actconform-litert"


class LiteRt(FrameworkBackend):
    """What the backend keras calls, converted by TFLiteConverter at the shapes of the call, and run by LiteRT on the CPU."""

    name, extra, packages = "litert", True, ("ai-edge-litert",)
    compiles_per_shape: ClassVar[bool] = True
    thread_safe: ClassVar[bool] = False  # the interpreter's documentation says so

    def facts(self) -> dict[str, str]:
        """Return versions, what the processor offers, by which XNNPACK chooses its kernels, threads, the fate of subnormals."""
        tf = keras_on("tensorflow")
        half = Converted().compiled(lambda x: {"y": x * 0.5})(tf.constant([2e-40]))["y"]
        return {
            **versions("ai-edge-litert", "tensorflow", "keras", "numpy"),
            "device": "cpu",
            "cpu_capability": cpu_capability(),
            "subnormals": fate_of_subnormals(half[0]),
            "threads": str(thread_count()),
        }

    def library(self) -> Library:
        """Return TensorFlow's functions as LiteRT computes them."""
        return Library("litert", ("ai-edge-litert",), primitives(Converted()))

    def build(self, kernel: Kernel, dtype: str) -> Program:
        """Return the kernel as a program; what TFLite has no operator for shows at the first call, as `Unsupported`."""
        keras_on("tensorflow")
        return KerasProgram(kernel, implement(kernel, KERAS_DTYPES[dtype]), Converted())

    def build_model(self, model: Model, dtype: str) -> Program:
        """Return the model of Keras's own layers as a program, its parameters inputs of the TFLite graph."""
        keras_on("tensorflow")
        return KerasModelProgram(model, dtype, Converted())


class Converted(TensorFlow):
    """Functions of tensors as TFLite graphs, one for each shape, run by LiteRT."""

    by = ", converted by tf.lite.TFLiteConverter"

    def arrays(self, tensors: Named) -> dict[str, Any]:
        return dict(tensors)  # LiteRT gives arrays

    def gradients(self, value: Any, sources: Named, cotangent: Any) -> dict[str, Any]:  # noqa: ARG002  it computes none
        """Raise `Unsupported`: for most gradients TFLite has no operator, and float16 ones end the process in LiteRT."""
        raise Unsupported("TFLite graphs are of values alone here")

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what converts `function` at its first call with each shape; it raises `Unsupported` in the converter's words."""
        tf, graphs = keras_on("tensorflow"), {}

        def call(*arguments: Any) -> dict[str, Any]:
            tensors = tf.nest.flatten(arguments)
            specs = [
                tf.TensorSpec(tensor.shape, tensor.dtype, f"input_{place}") for place, tensor in enumerate(tensors)
            ]
            if str(specs) not in graphs:
                graphs[str(specs)] = _converted(function, tf.nest.pack_sequence_as(arguments, specs))
            try:
                return dict(
                    graphs[str(specs)](**{spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)})
                )
            except (RuntimeError, ValueError) as error:
                raise Unsupported(words(error)) from error

        return call


def _converted(function: Callable[..., Any], specs: Any) -> Callable[..., Any]:
    """Return what LiteRT makes of a function of tensors, called with arrays by name; raise `Unsupported` where it makes nothing."""
    tf = keras_on("tensorflow")
    runtime = imported("ai_edge_litert.interpreter", INSTALL, plugin="actconform-litert", packages=LiteRt.packages)
    try:
        graph = tf.function(function, autograph=False).get_concrete_function(*specs)
        model = tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module()).convert()
        return runtime.Interpreter(model_content=model, num_threads=thread_count()).get_signature_runner()
    except Exception as error:  # TensorFlow's while it traces, the converter's own, LiteRT's
        raise Unsupported(words(error)) from error


def words(error: Exception) -> str:
    """Return the converter's or LiteRT's reason in a line: the operators that TFLite lacks, where it lists them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    return next((line for line in lines if line.startswith(("TF Select ops", "Custom ops"))), lines[0])


@hookimpl
def actconform_backends() -> tuple[type[FrameworkBackend], ...]:
    """Return the one backend."""
    return (LiteRt,)


@hookimpl
def actconform_causes() -> tuple[Any, ...]:
    """Return the register of known causes."""
    from actconform import register_of  # a worker needs the backend alone

    return (register_of(__name__),)
