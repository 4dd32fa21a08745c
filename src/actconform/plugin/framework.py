"""What native backends share: implementations of kernels, layers in their model, facts of the process. Imports no framework.

A framework plugin registers its table of implementations once, and any other plugin adds those of its own kernels:

    register_implementations("torch", {"cube": Composition("composition: x ** 3", lambda x: x**3)})
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar, cast

import msgspec

from actconform.catalog.models.layer_kinds import kernel_of
from actconform.errors import Unsupported
from actconform.plugin.interfaces import Backend
from actconform.types import Artifact, Support
from actconform.types.dtypes import DTYPES
from actconform.types.model import Layer, Shape  # noqa: TC001  msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from actconform.types import Case, Kernel
    from actconform.types.model import Model

Builder = TypeVar("Builder")
Made = TypeVar("Made")


class Native(NamedTuple):
    """A function of the framework by its dotted path, or a class of layers.

    `parameters` maps its arguments to the kernel's parameters or to "axis"; `constants` are arguments with their values.
    """

    path: str
    parameters: Mapping[str, str] = {}
    constants: Mapping[str, Any] = {}


class Composition(NamedTuple):
    """A function of the framework's own functions, called with the kernel's inputs and its parameters by name.

    `text` says what it computes, with the kernel's parameters in braces: "composition: x * torch.sigmoid({beta} * x)".
    `prepare` is called with x before anything is traced, for frameworks that can make no variables there.
    """

    text: str
    function: Callable[..., Any]
    prepare: Callable[[Any], object] | None = None


class Implementation(NamedTuple):
    """What computes one kernel: in words, a function from its inputs as tensors, in order, to its output, and `prepare`."""

    text: str
    function: Callable[..., Any]
    prepare: Callable[[Any], object] | None = None


IMPLEMENTATIONS: dict[str, dict[str, Native | Composition]] = {}


def register_implementations(framework: str, table: Mapping[str, Native | Composition]) -> None:
    """Register what computes kernels, by name, in `framework`: "torch", "keras", "jax", or one of a plugin's own.

    Raises ValueError where a kernel has another implementation there already.
    """
    registered = IMPLEMENTATIONS.setdefault(framework, {})
    for name in table:
        if name in registered:
            raise ValueError(f"two implementations of kernel {name!r} for {framework}")
    registered.update(table)


def implement(framework: str, kernel: Kernel, **layer_arguments: object) -> Implementation:
    """Return what computes `kernel`, its parameters bound; raise `Unsupported` where nothing is registered under its name.

    `layer_arguments` are for classes of layers alone, such as a dtype, which functions take from their input.
    """
    registered = IMPLEMENTATIONS.get(framework, {}).get(kernel.name)
    if registered is None:
        raise Unsupported(f"{framework} has no implementation of kernel {kernel.name}")
    if isinstance(registered, Composition):
        numbers = {name: _spelled(value) for name, value in kernel.parameters.items()}
        text, function, prepare = registered
        return Implementation(text.format(**numbers), partial(function, **kernel.parameters), prepare)
    values: dict[str, Any] = {**kernel.parameters, "axis": kernel.axis}
    arguments = {name: values[source] for name, source in registered.parameters.items()} | dict(registered.constants)
    module, _, name = registered.path.rpartition(".")
    callee = getattr(import_module(module), name)
    is_layer = isinstance(callee, type)
    bound = callee(**arguments, **layer_arguments) if is_layer else partial(callee, **arguments)
    spelled = ", ".join(f"{name}={_spelled(value)}" for name, value in arguments.items())
    return Implementation(f"{registered.path}({spelled})" if spelled else registered.path, bound)


def _spelled(value: float | str | bool) -> str:
    return repr(value) if isinstance(value, str | bool) else f"{value:.7g}"


class LayerContext(msgspec.Struct, frozen=True, kw_only=True):
    """A layer in its model: the shapes that it reads and gives, without the batch, channels last; whether the model trains."""

    layer: Layer
    shapes: tuple[Shape, ...]
    shape: Shape
    training: bool

    @classmethod
    def of(cls, model: Model, layer: Layer, **fields: object) -> Self:
        """Return the context of one layer of `model`, with the `fields` that a subclass adds."""
        shapes = {entry.name: entry.shape for entry in model.inputs} | model.shapes
        read = tuple(shapes[name] for name in layer.inputs)
        return cls(layer=layer, shapes=read, shape=shapes[layer.name], training=model.training, **fields)

    def number(self, setting: str) -> float:
        """Return a setting that is a number."""
        return float(cast("float", self.layer.settings[setting]))

    def pair(self, setting: str) -> tuple[int, int]:
        """Return a setting that is two integers: rows and columns."""
        rows, columns = cast("tuple[int, int]", self.layer.settings[setting])
        return rows, columns

    @property
    def kernel(self) -> Kernel:
        """Return the kernel of an activation layer, a plugin's or a built-in one."""
        return kernel_of(self.layer)


def builder_of(layer: Layer, builders: Mapping[str, Builder], framework: str) -> Builder:
    """Return the entry of `builders` for the layer's kind; raise `Unsupported` where `framework` has none."""
    if layer.kind not in builders:
        raise Unsupported(f"layer {layer.name}: {framework} has no layer of kind {layer.kind} here")
    return builders[layer.kind]


class FrameworkBackend(Backend):
    """A backend that builds kernels and models of a framework's own functions, at f32, f16 and bf16."""

    kind: ClassVar[Literal["framework", "runtime"]] = "framework"

    def supports(self, case: Case) -> Support:
        """Say no to other dtypes; a kernel or layer that the framework lacks is refused when it is built."""
        if case.dtype not in DTYPES:
            return Support(yes=False, reason=f"{self.name} runs {', '.join(DTYPES)} here, not {case.dtype}")
        return Support(yes=True)


def refuse_without_gradient(kernel: Kernel) -> None:
    """Raise `Unsupported` for a kernel that is declared to have no gradient."""
    if not kernel.differentiable:
        raise Unsupported(f"kernel {kernel.name} has no gradient, by declaration")


def thread_count() -> int:
    """Return the number of threads to compute with; raise ValueError where ACTCONFORM_THREADS is no positive integer."""
    text = os.environ.get("ACTCONFORM_THREADS", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"ACTCONFORM_THREADS is {text!r}: give the number of threads, 1 or more")
    return int(text)


def per_thread(make: Callable[[], Made]) -> Callable[[], Made]:
    """Return a function that gives each thread what `make` made for it: for objects of a library that serve one thread at a time."""
    own = threading.local()

    def of_this_thread() -> Made:
        if not hasattr(own, "made"):
            own.made = make()
        made: Made = own.made
        return made

    return of_this_thread


def versions(*packages: str) -> dict[str, str]:
    """Return the version of each of `packages` that is installed, without importing any."""
    installed = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def fate_of_subnormals(number: float) -> str:
    """Return the fact "kept" or "flushed", given what the framework computed where a subnormal number is right."""
    return "kept" if number != 0.0 else "flushed"


def exported(model: bytes, path: str) -> Artifact:
    """Return an exporter's serialized ModelProto as an artifact, with the opset and IR version that it states."""
    import onnx

    proto = onnx.load_model_from_string(model)
    opset = next(entry.version for entry in proto.opset_import if not entry.domain)
    return Artifact(model, opset, path, ir_version=proto.ir_version)


def error_line(error: Exception) -> str:
    """Return an error in one line, its type first: "TypeError: no kernel for bfloat16"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    return f"{type(error).__name__}: {lines[0]}"
