"""jax2onnx as an exporter, called as its users call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from actconform import Artifact, Exporter, Unavailable, Unsupported
from actconform.plugin.framework import error_line, exported
from actconform.types.model import LOSS, OUTPUT
from actconform_jax.jax_module import array_of, import_jax
from actconform_jax.kernels import implement
from actconform_jax.models import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jax import Array

    from actconform import Kernel, Model, TrainedModel
    from actconform.types import Bundle

JAX_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


TO_ONNX = """import functools

import jax
import jax2onnx
import onnx

FUNCTION = $function


def export(path):
    shape = jax.ShapeDtypeStruct(("n",), "$dtype")
    onnx.save(jax2onnx.to_onnx(FUNCTION, [shape], input_names=["x"], output_names=["y"]), path)
"""


class Jax2Onnx(Exporter):
    """`jax2onnx.to_onnx` at its default opset, every dimension of a kernel and the batch of a model a name."""

    name: ClassVar[str] = "jax2onnx"
    source: ClassVar[str] = "jax"

    @classmethod
    def reproduction(cls) -> str:
        return TO_ONNX

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        import_jax()
        return _converted(implement(kernel).function, {name: kernel.dims(name) for name in kernel.inputs}, ["y"], dtype)

    def export_model(self, model: Model, dtype: str, constants: Bundle | None) -> Artifact:
        """Return the graph of all layers and the loss; with constants that from the inputs that are no target to "y"."""
        jax = import_jax()
        network = Network(model)
        shapes: dict[str, Sequence[int | str]] = {
            one.name: ("batch", *one.shape) for one in model.inputs if constants is None or one.role != "target"
        }
        if constants is not None:
            parameters = {name: array_of(array) for name, array in constants.items()}

            def shipped(*inputs: Array) -> Array:
                named = {**dict(zip(shapes, inputs, strict=True)), **parameters}
                return network(named, model.layers[:-1])[model.output]

            return _converted(shipped, shapes, [OUTPUT], dtype)
        shapes |= {one.name: one.shape for one in model.parameters}

        def values(*tensors: Array) -> tuple[Array, ...]:
            found = network(dict(zip(shapes, tensors, strict=True)))
            # Copies: jax2onnx refuses to give one value two names.
            return tuple(map(jax.numpy.copy, (found[model.output], found[LOSS], *found.values())))

        return _converted(values, shapes, [OUTPUT, LOSS, *(f"layer.{layer.name}" for layer in model.layers)], dtype)

    def export_trained(self, model: TrainedModel, inputs: Bundle, *, training: bool = False) -> Artifact:
        """Return the graph of a user's model in inference or training mode, its batch dynamic where jax2onnx lets it be."""
        import_jax()
        from actconform_jax.trained_export import exported_trained  # it imports jax

        return exported_trained(model, inputs, training=training)


def _converted(
    function: Callable[..., Any], shapes: Mapping[str, Sequence[int | str]], outputs: Sequence[str], dtype: str
) -> Artifact:
    jax = import_jax()
    kind = jax.numpy.dtype(JAX_DTYPES[dtype])
    specs = [jax.ShapeDtypeStruct(tuple(shape), kind) for shape in shapes.values()]
    try:
        import jax2onnx

        proto = jax2onnx.to_onnx(function, specs, input_names=list(shapes), output_names=list(outputs))
    except MemoryError:
        raise
    except ImportError as error:  # it imports most of what it requires when it is first called
        raise Unavailable(f'{error}: pip install "actconform-jax[export]"') from error
    except Exception as error:
        raise Unsupported(error_line(error)) from error
    return exported(proto.SerializeToString(), "to_onnx")
