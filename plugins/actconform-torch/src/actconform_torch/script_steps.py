"""Modules of TorchScript that tell of each step: their code runs in no Python, so that no hook and no mode of functions sees its layers.

A copy is compiled anew, with operators of this file between those of its graphs, which hand over what each submodule and each function reads
and gives. Only the copy has them.
"""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from actconform_torch.wide_arithmetic import WIDE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LIBRARY = torch.library.Library("actconform", "DEF")
_LIBRARY.define("script_step(str event, str name, Any value) -> ()")
_MARK = "actconform::script_step"
_MANGLED = re.compile(r"___torch_mangle_\d+\.")
_CONTAINERS = ("OptionalType", "TupleType", "ListType", "DictType")


class ScriptListener(Protocol):
    """What is told of the steps of marked modules while they run."""

    def script_step(self, event: str, name: str, value: Any) -> None:
        """Take a step.

        "call": a method of the submodule `name` ("" for the one that runs) is given `value`; "called": the method `name` gave `value`.
        "read" and "function": the function `name` read `value`, then gave `value`.
        """


_listeners: list[ScriptListener] = []


def _step(event: str, name: str, value: Any) -> None:
    for listener in _listeners:
        listener.script_step(event, name, value)


_LIBRARY.impl("script_step", _step, "CompositeExplicitAutograd")


@contextmanager
def listening(listener: ScriptListener) -> Iterator[None]:
    """Tell a listener of all steps within, each with the values as they are then: without optimizations, which would join steps."""
    _listeners.append(listener)
    try:
        with torch.jit.optimized_execution(should_optimize=False):  # type: ignore[no-untyped-call]
            yield
    finally:
        _listeners.remove(listener)


def marked_copy(module: torch.jit.ScriptModule, *, wide: bool = False) -> torch.jit.ScriptModule | None:
    """Return a module compiled anew that tells of its steps, with `wide` with the constants of its code in float64; None where torch cannot save it."""
    file = io.BytesIO()
    try:
        torch.jit.save(module, file)  # type: ignore[no-untyped-call]
        file.seek(0)
        copy: torch.jit.ScriptModule = torch.jit.load(file)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None
    for graph in graphs_of(copy):
        for node in nodes_of(graph.nodes()) if wide else ():
            _widen_constant(node)
        _mark(graph, graph.nodes(), next(graph.inputs()))
    return copy


def graphs_of(module: torch.jit.ScriptModule) -> Iterator[Any]:
    """Yield the graphs of all methods of a module and its submodules, those of one class once."""
    seen = set()
    for part in module.modules():
        kind = class_of(part)
        if kind not in seen:
            seen.add(kind)
            for name in _compiled(part)._method_names():  # noqa: SLF001  it has no public name
                yield _compiled(part)._get_method(name).graph  # noqa: SLF001


def class_of(module: torch.nn.Module) -> str:
    """Return the class of a module of TorchScript as torch has compiled it, which tells apart what one Python class became."""
    return str(_compiled(module)._type().qualified_name())  # noqa: SLF001


def python_class_of(module: torch.nn.Module) -> str:
    """Return the Python class that a module of TorchScript was made of: "torch.nn.modules.linear.Linear"."""
    return _MANGLED.sub("", class_of(module)).removeprefix("__torch__.")


def methods_of(module: torch.nn.Module) -> list[str]:
    """Return the names of the methods of a module of TorchScript."""
    return list(_compiled(module)._method_names())  # noqa: SLF001


def nodes_of(nodes: Any) -> Iterator[Any]:
    """Yield the nodes of a graph or a block, and those within them."""
    for node in nodes:
        yield node
        for block in node.blocks():
            yield from nodes_of(block.nodes())


def kept_tensors(module: torch.jit.ScriptModule) -> Iterator[tuple[torch.nn.Module, str]]:
    """Yield the modules with the names of the attributes that their code reads and that hold a tensor, parameters and buffers among them."""
    names: dict[str, dict[str, None]] = {}
    for graph in graphs_of(module):
        for node in nodes_of(graph.nodes()):
            if node.kind() == "prim::GetAttr" and node.output().type().kind() == "TensorType":
                names.setdefault(node.inputsAt(0).type().qualified_name(), {})[node.s("name")] = None
    for part in module.modules():
        for name in names.get(class_of(part), ()):
            yield part, name


def branches_on_dtype(module: torch.jit.ScriptModule) -> bool:
    """Whether its code compares the dtype of a tensor with a certain one: in another it would go another way."""
    return any(
        use.user.kind() in ("aten::eq", "aten::ne", "aten::__is__", "aten::__isnot__", "aten::__contains__")
        and any(value.node().kind() == "prim::Constant" for value in use.user.inputs())
        for graph in graphs_of(module)
        for node in nodes_of(graph.nodes())
        if node.kind() == "prim::dtype"
        for use in node.output().uses()
    )


def _compiled(module: torch.nn.Module) -> Any:
    return module._c  # noqa: SLF001  torch's own object, which has no public name


class _Step(NamedTuple):
    """What a node does, in the words of `ScriptListener.script_step`."""

    before: tuple[str, str]
    after: tuple[str, str]


def _widen_constant(node: Any) -> None:
    if node.kind() == "prim::Constant" and node.hasAttribute("value") and node.kindOf("value") == "t":
        tensor = node.t("value")
        if tensor.dtype in WIDE:
            node.t_("value", tensor.to(WIDE[tensor.dtype]))
            node.output().inferTypeFrom(node.t("value"))


def _mark(graph: Any, nodes: Any, module: Any) -> None:
    """Put marks before and after each node that calls a submodule or a function; `module` is the value that the graph's own module has."""
    for node in list(nodes):
        for block in node.blocks():
            _mark(graph, block.nodes(), module)
        step = _step_of(node, module)
        if step:
            values = list(node.inputs())[int(node.kind().startswith("prim::")) :]
            for mark in _marks(graph, *step.before, values):
                mark.insertBefore(node)
            place = node
            for mark in _marks(graph, *step.after, list(node.outputs())):
                mark.insertAfter(place)
                place = mark


def _step_of(node: Any, module: Any) -> _Step | None:
    kind = node.kind()
    if kind == "prim::CallMethod":
        return _Step(("call", _path(node.inputsAt(0), module)), ("called", node.s("name")))
    if kind == "prim::CallFunction":
        name = node.inputsAt(0).node().s("name")
        return _Step(("read", name), ("function", name))
    if kind.startswith("aten::") and any(_holds_tensors(output.type()) for output in node.outputs()):
        name = kind.removeprefix("aten::")
        return _Step(("read", name), ("function", name))
    return None


def _path(value: Any, module: Any) -> str:
    """Return the path of a submodule within the module that has it: "layers.0"; "?" where it is chosen as the code runs."""
    names: list[str] = []
    while value.node().kind() == "prim::GetAttr":
        names.insert(0, value.node().s("name"))
        value = value.node().inputsAt(0)
    return ".".join(names) if value.unique() == module.unique() else "?"


def _marks(graph: Any, event: str, name: str, values: Sequence[Any]) -> list[Any]:
    """Return the nodes that tell of a step with some values."""
    texts = []
    for text in (event, name):
        constant = graph.create("prim::Constant", [], 1).s_("value", text)
        constant.output().setType(torch._C.StringType.get())  # noqa: SLF001
        texts.append(constant)
    tensors = [value for value in values if _holds_tensors(value.type())]
    joined = graph.create("prim::TupleConstruct", tensors, 1)
    joined.output().setType(torch._C.TupleType([value.type() for value in tensors]))  # noqa: SLF001
    return [*texts, joined, graph.create(_MARK, [*(text.output() for text in texts), joined.output()], 0)]


def _holds_tensors(type_: Any) -> bool:
    kind = type_.kind()
    return kind == "TensorType" or (kind in _CONTAINERS and any(map(_holds_tensors, type_.containedTypes())))
