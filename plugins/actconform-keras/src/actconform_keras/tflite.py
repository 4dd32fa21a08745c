"""A TFLite file, open: run by TensorFlow's interpreter, with all tensors kept where layers are asked for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import SourceError
from actconform.plugin.framework import thread_count
from actconform.plugin.trained_model import TrainedModel
from actconform.text import one_line
from actconform.types.trained import LayerRecord, OpenedModel, TensorSpec, TrainedRun
from actconform_keras.saved_model import checked_inputs, native_only

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from actconform.types.trained import RunMode, TrainedSource

    Arrays = Mapping[str, NDArray[Any]]

_IDENTIFIER = b"TFL3"  # of a FlatBuffer, behind the first four bytes


class TfliteTrained(TrainedModel):
    """A TFLite model on the CPU: outputs as users get them, layers without the delegates that would hide them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._native = _interpreter(path, layers=False)
        self._all: Any = None
        # By the names of tensors, which exporters keep; those of a signature do not.
        self._inputs = {detail["name"]: detail for detail in self._native.get_input_details()}
        self._outputs = {detail["name"]: detail for detail in self._native.get_output_details()}
        constants = self.parameters()
        count = sum(array.size for array in constants.values())
        self._about = OpenedModel(
            framework="keras",
            about=f"{path.name} (TFLite), {count:,} weights",
            inputs=tuple(
                TensorSpec(name, np.dtype(detail["dtype"]).name, _dims(detail)) for name, detail in self._inputs.items()
            ),
            parameters=tuple(TensorSpec(name, array.dtype.name, array.shape) for name, array in constants.items()),
            exporters=("tf2onnx",),
        )

    @property
    def about(self) -> OpenedModel:
        return self._about

    def run(self, inputs: Arrays, mode: RunMode, *, layers: bool = False) -> TrainedRun:
        """Return the outputs; with `layers` every tensor that an operator gives, by its name, quantized ones as real numbers."""
        native_only(mode, "a TFLite file")
        arrays = checked_inputs(inputs, self._about)
        outputs = _computed(self._native, self._inputs, arrays)
        named = {name: outputs.get_tensor(detail["index"]) for name, detail in self._outputs.items()}
        if not layers:
            return TrainedRun(outputs=named)
        if self._all is None:
            self._all = _interpreter(self.path, layers=True)
        return self._recorded(_computed(self._all, self._inputs, arrays), arrays, named)

    def parameters(self) -> dict[str, NDArray[Any]]:
        """Return the constants that operators read, in the types in which they are stored."""
        interpreter = self._native
        computed = {index for detail in _operators(interpreter) for index in detail["outputs"]}
        computed |= {detail["index"] for detail in interpreter.get_input_details()}
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        constants: dict[str, NDArray[Any]] = {}
        for operator in _operators(interpreter):
            for index in operator["inputs"]:
                if index >= 0 and index not in computed and details[index]["name"] not in constants:
                    try:
                        constants[details[index]["name"]] = np.array(interpreter.get_tensor(index))
                    except ValueError:  # states that variables of the model hold
                        continue
        return constants

    def _recorded(self, interpreter: Any, arrays: Arrays, outputs: dict[str, NDArray[Any]]) -> TrainedRun:
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        tensors: list[NDArray[Any]] = []
        places: dict[int, int] = {}
        records = []
        for name, detail in self._inputs.items():
            places[detail["index"]] = len(tensors)
            tensors.append(_real(np.asarray(arrays[name]), detail))
        owned = set(self.parameters())
        for operator in _operators(interpreter):
            read = tuple(places[index] for index in operator["inputs"] if index in places)
            for index in operator["outputs"]:
                try:
                    array = interpreter.get_tensor(index)
                except ValueError:  # never computed, as in a branch that was not taken
                    continue
                places[index] = len(tensors)
                tensors.append(_real(np.array(array), details[index]))
            written = tuple(places[index] for index in operator["outputs"] if index in places)
            if written:
                names = (details[index]["name"] for index in operator["inputs"] if index >= 0)
                records.append(
                    LayerRecord(
                        details[operator["outputs"][0]]["name"],
                        f"tflite {operator['op_name']}",
                        read,
                        written,
                        tuple(name for name in names if name in owned),
                    )
                )
        ends = tuple(places[detail["index"]] for detail in self._outputs.values() if detail["index"] in places)
        records.append(LayerRecord("", "TFLite", tuple(range(len(self._inputs))), ends))
        return TrainedRun(outputs=outputs, layers=records, tensors=tensors)


def open_tflite(source: TrainedSource) -> TrainedModel:
    """Return the TFLite file, open. Raises SourceError for a damaged one, and one whose operators TensorFlow does not have."""
    path = Path(source.text)
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:] != _IDENTIFIER:
        raise SourceError("is no TFLite file: bytes 4 to 8 are not TFL3")
    return TfliteTrained(path)


def _interpreter(path: Path, *, layers: bool) -> Any:
    import tensorflow as tf

    resolvers = tf.lite.experimental.OpResolverType
    options: dict[str, Any] = {"num_threads": thread_count()}
    if layers:
        options |= {
            "experimental_preserve_all_tensors": True,
            "experimental_op_resolver_type": resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the interpreter moves to a package of its own
            interpreter = tf.lite.Interpreter(str(path), **options)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise SourceError(f"the TFLite file cannot be loaded: {one_line(str(error), 400)}") from error
    return interpreter


def _dims(detail: Any) -> tuple[int | None, ...]:
    signature = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    return tuple(None if dim < 0 else int(dim) for dim in signature)


def _computed(interpreter: Any, inputs: Mapping[str, Any], arrays: Arrays) -> Any:
    """Return the interpreter after it has computed. Raises SourceError for shapes that the model does not take."""
    try:
        for name, detail in inputs.items():
            interpreter.resize_tensor_input(detail["index"], arrays[name].shape, strict=True)
        interpreter.allocate_tensors()
        for name, detail in inputs.items():
            interpreter.set_tensor(detail["index"], arrays[name])
        interpreter.reset_all_variables()
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise SourceError(f"the TFLite file cannot be run: {one_line(str(error), 400)}") from error
    return interpreter


def _operators(interpreter: Any) -> list[Any]:
    operators: list[Any] = interpreter._get_ops_details()  # noqa: SLF001  nothing public lists the operators
    return operators


def _real(array: NDArray[Any], detail: Any) -> NDArray[Any]:
    """Return a quantized tensor as the real numbers that it stands for: (q - zero point) scale, of each channel its own."""
    quantization = detail["quantization_parameters"]
    scales, zeros = quantization["scales"], quantization["zero_points"]
    if array.dtype.kind not in "iu" or not len(scales):
        return array
    if len(scales) > 1:
        shape = [1] * array.ndim
        shape[quantization["quantized_dimension"]] = -1
        scales, zeros = scales.reshape(shape), zeros.reshape(shape)
    numbers: NDArray[Any] = ((array.astype(np.float64) - zeros) * scales).astype(np.float32)
    return numbers
