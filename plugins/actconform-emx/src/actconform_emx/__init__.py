"""emx-onnx-cgen for actconform: the backend emx, graphs as C that the machine's compiler compiles, and the register of what is known of it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import warnings
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx.helper import make_tensor_value_info, tensor_dtype_to_np_dtype

from actconform import Artifact, Backend, Library, Program, Unavailable, Unsupported, hookimpl
from actconform.machine.cpu import cpu_capability
from actconform.plugin.framework import versions
from actconform.plugin.import_failure import imported


class Emx(Backend):
    """emx-onnx-cgen and a C compiler, for each shape of inputs anew: its temporaries have sizes, and large ones lie on the heap."""

    name, kind, extra, packages, compiles_per_shape = "emx", "runtime", True, ("emx-onnx-cgen",), True

    def facts(self) -> dict[str, str]:
        """Return the versions of the generator, of the C compiler and of the C library, which chooses its functions by the processor."""
        _generator()
        run = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=False)  # noqa: S603
        facts = versions("emx-onnx-cgen") | {"device": "cpu", "cpu_capability": cpu_capability(), "threads": "1"}
        return facts | {"c_compiler": run.stdout.partition("\n")[0], "libc": " ".join(platform.libc_ver())}

    def library(self) -> Library:
        """Return the functions that the C library computes."""
        return Library("emx-libm", ("emx-onnx-cgen", "libc"))

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program; it is compiled at the first call with each shape, and refused there."""
        return Graph(artifact.model, artifact.path)


class Graph(Program):
    """A graph, and its machine code for the shapes that it was called with."""

    def __init__(self, model: bytes, path: str) -> None:
        self.implementation, self._model, self._compiled = path, model, {}

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Return every output by name, in memory of its own; raise `Unsupported` where no C or no machine code can be made."""
        shapes = str({name: array.shape for name, array in inputs.items()})
        if shapes not in self._compiled:
            self._compiled[shapes] = compiled(self._model, inputs)
        function, graph = self._compiled[shapes]
        tensors = [np.array(inputs[value.name], order="C") for value in graph.input if value.name in inputs]
        outputs = {value.name: _array_of(value) for value in graph.output}
        function(*(ctypes.c_void_p(array.ctypes.data) for array in (*tensors, *outputs.values())))
        return outputs


def compiled(model: bytes, inputs: Any) -> tuple[Any, onnx.GraphProto]:
    """Return what computes the graph for inputs of these shapes, given pointers to inputs and outputs, and the graph with these shapes.

    Raises `Unsupported` in the words of onnx where the graph does not take them, of the generator, and of the C compiler.
    """
    generate, refusal = _generator()
    fixed = onnx.load_model_from_string(model)
    for value in (value for value in fixed.graph.input if value.name in inputs):
        element = value.type.tensor_type.elem_type
        value.CopyFrom(make_tensor_value_info(value.name, element, inputs[value.name].shape))
    try:
        fixed = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
        source = generate(fixed)
    except (refusal, onnx.shape_inference.InferenceError) as error:
        raise Unsupported(" ".join(str(error).split())) from error
    with TemporaryDirectory(prefix="actconform-") as folder:
        library = f"{folder}/model.so"
        command = [_compiler(), "-O2", "-shared", "-fPIC", "-o", library, "-x", "c", "-", "-lm"]
        run = subprocess.run(command, input=source, capture_output=True, text=True, check=False)  # noqa: S603
        if run.returncode:
            raise Unsupported(f"C compiler: {' '.join(run.stderr.split())[:400]}")
        return ctypes.CDLL(library).model, fixed.graph


def _array_of(value: onnx.ValueInfoProto) -> Any:
    tensor = value.type.tensor_type
    if not (tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)):
        raise Unsupported(f"the shape of output {value.name!r} does not follow from those of the inputs")
    return np.empty([dim.dim_value for dim in tensor.shape.dim], tensor_dtype_to_np_dtype(tensor.elem_type))


@cache
def _generator() -> tuple[Any, Any]:
    """Return what writes C of a model, with its templates read once, and the class of its refusals."""
    with warnings.catch_warnings():  # what it imports hides some
        emx = imported("emx_onnx_cgen", "pip install actconform-emx", plugin="actconform-emx", packages=Emx.packages)
    options = emx.compiler.CompilerOptions(large_weight_threshold=0)  # weights in the C, not in a file beside it
    return emx.Compiler(options).compile, emx.errors.CompilerError


def _compiler() -> str:
    if path := shutil.which(os.environ.get("CC", "cc")):
        return path
    raise Unavailable("no C compiler cc: install one, such as gcc, or name yours in CC")


@hookimpl
def actconform_backends() -> tuple[type[Backend], ...]:
    """Return the one backend."""
    return (Emx,)


@hookimpl
def actconform_causes() -> tuple[Any, ...]:
    """Return the register of known causes."""
    from actconform import register_of  # a worker needs the backend alone

    return (register_of(__name__),)
