"""One run of a module with the values of all its layers: by hooks on its modules, and by the functions of torch that they call."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
import torch.nn.functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from actconform.types.trained import LayerRecord
from actconform_torch.script_steps import listening, methods_of, python_class_of
from actconform_torch.torch_module import array_of
from actconform_torch.trained_call import flattened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# What gives the values that it reads in another shape or order; what is a part, or repeats, is recorded by itself.
LAYOUT = frozenset(
    [
        "view",
        "view_as",
        "reshape",
        "reshape_as",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "permute",
        "transpose",
        "t",
        "T",
        "mT",
        "movedim",
        "moveaxis",
        "swapaxes",
        "swapdims",
        "contiguous",
        "clone",
        "detach",
        "data",
        "expand",
        "expand_as",
        "broadcast_to",
        "alias",
        "adjoint",
        "to",
        "type",
        "double",
        "float",
        "half",
        "bfloat16",
        "_to_copy",
    ]
)
# What reads a tensor for its shape or dtype alone, or gives memory that nobody has written.
FILLED = frozenset(
    [
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "randint_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "new_tensor",
        "empty",
        "empty_strided",
        "grad",
        "_grad",
        "_base",
        "requires_grad_",
        "is_nonzero",
    ]
)
_REFLECTED = frozenset(["add", "sub", "mul", "div", "truediv", "floordiv", "pow", "mod", "matmul", "and", "or", "xor"])
# Within it no function of torch is seen by a mode; it has no public name.
UNSEEN = torch._C.DisableTorchFunction  # noqa: SLF001
_SHORT_CUTS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


class _Frame(NamedTuple):
    """A module that is being called."""

    path: str
    inputs: tuple[int, ...]
    functions: list[LayerRecord]
    """Those called in it directly, as far as they were recorded."""
    children: list[str]


class LayerRecorder(TorchFunctionMode):
    """Records while it is entered; `module` is called once within.

    Tensors are copied when they are seen, since later functions may write to them. One tensor object in one version is recorded once; what only
    lays the values of a recorded tensor out anew counts as that tensor.
    """

    def __init__(self, module: torch.nn.Module, inputs: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.layers: list[LayerRecord] = []
        self.tensors: list[NDArray[Any]] = []
        self._places: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._module = module
        self._names = {id(part): name for name, part in module.named_modules()}
        self._modules = dict(module.named_modules(remove_duplicate=False))
        self._weights = {id(weight): name for name, weight in (*module.named_parameters(), *module.named_buffers())}
        self._frames: list[_Frame] = []
        self._calls: dict[str, int] = {}
        self._read: tuple[list[torch.Tensor], dict[int, int]] = [], {}
        """By the function of TorchScript that runs: what it reads, and the places of that."""
        self._stack = ExitStack()
        for tensor in inputs:
            self._add(tensor)

    def __enter__(self) -> Self:
        self._stack.enter_context(every_function_seen())
        self._stack.enter_context(listening(self))
        for part in self._module.modules():
            if isinstance(part, torch.jit.ScriptModule):  # takes no hooks
                self._watch_script(part)
                continue
            self._stack.callback(part.register_forward_pre_hook(self._begin_module, with_kwargs=True).remove)
            self._stack.callback(part.register_forward_hook(self._end_module, with_kwargs=True).remove)
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._stack.close()

    def script_step(self, event: str, name: str, value: Any) -> None:
        """Record a step of a module of TorchScript, as `ScriptListener` tells it."""
        with UNSEEN():
            if event == "call":
                path = ".".join(part for part in (self._frames[-1].path, name) if part)
                self._begin(path, value)
            elif event == "called":
                self._end(self._frames[-1].path, value, is_layer=name.startswith("forward"))
            elif event == "read":
                read = [tensor for _, tensor in flattened(value, "")]
                self._read = read, self._places_of(read)
            elif (short := name.strip("_")) not in FILLED and self._read[0]:
                self._record_function(short, *self._read, value)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, and record what it gave."""
        kwargs = kwargs or {}
        name = _name_of(func)
        if not self._frames or not name or name in FILLED:
            return func(*args, **kwargs)
        read = [tensor for _, tensor in flattened([args, kwargs], "") if isinstance(tensor, torch.Tensor)]
        before = self._places_of(read)
        result = func(*args, **kwargs)
        if read:
            with UNSEEN():
                self._record_function(name, read, before, result)
        return result

    def _record_function(
        self, name: str, read: Sequence[torch.Tensor], before: Mapping[int, int], result: object
    ) -> None:
        tensors = list(_tensors(result))
        tensors += [read[index] for index in before if self._place(read[index]) is None]  # written in place
        fresh = [tensor for tensor in tensors if self._place(tensor) is None]
        if name in LAYOUT and len(tensors) == 1 and tensors[0].dtype == read[0].dtype:
            self._lay_out(tensors[0], before)
            return
        recorded = [tensor for tensor in fresh if tensor.numel() > 1 and tensor.dtype != torch.bool]
        if not recorded:
            return
        path = f"{self._frames[-1].path}:{name}"
        inputs = tuple(dict.fromkeys(before.values()))
        outputs = tuple(dict.fromkeys(self._add(tensor) for tensor in recorded))
        weights = tuple(dict.fromkeys(self._weights[id(tensor)] for tensor in read if id(tensor) in self._weights))
        record = LayerRecord(self._numbered(path), f"function {name}", inputs, outputs, weights)
        self.layers.append(record)
        self._frames[-1].functions.append(record)

    def _lay_out(self, tensor: torch.Tensor, before: Mapping[int, int]) -> None:
        """Let the tensor count as the one that it lays out; where that is none that is recorded, it is none either."""
        if self._place(tensor) is None and 0 in before:
            self._places[tensor] = (_version(tensor), before[0])

    def _watch_script(self, part: torch.nn.Module) -> None:
        """Let the methods of a module of TorchScript be seen that Python calls."""
        path = self._names[id(part)]
        for name in methods_of(part):
            method = getattr(part, name)

            def watched(*args: Any, _name: str = name, _method: Callable[..., Any] = method, **kwargs: Any) -> Any:
                with UNSEEN():
                    self._begin(path, [args, kwargs])
                result = _method(*args, **kwargs)
                with UNSEEN():
                    self._end(path, result, is_layer=_name.startswith("forward"))
                return result

            part.__dict__[name] = watched
            self._stack.callback(part.__dict__.pop, name, None)

    def _begin_module(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        with UNSEEN():
            self._begin(self._names[id(module)], [args, kwargs])

    def _end_module(self, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:  # noqa: ARG002  torch hands them over
        with UNSEEN():
            self._end(self._names[id(module)], result)

    def _begin(self, path: str, values: object) -> None:
        places = [self._place(tensor) for _, tensor in flattened(values, "")]
        inputs = tuple(dict.fromkeys(place for place in places if place is not None))
        self._frames.append(_Frame(path, inputs, [], []))

    def _end(self, path: str, result: object, *, is_layer: bool = True) -> None:
        """Leave what was called last, and record it if it is a layer: no other method, and a module that is known."""
        frame = self._frames.pop()
        module = self._modules.get(path)
        if module is None or not is_layer:
            self._frames[-1].functions.extend(frame.functions)
            self._frames[-1].children.extend(frame.children)
            return
        if self._frames:
            self._frames[-1].children.append(path)
        outputs = tuple(dict.fromkeys(self._output(tensor) for _, tensor in flattened(result, "")))
        alone = len(frame.functions) == 1 and not frame.children
        if alone and self.layers[-1] is frame.functions[0] and set(self.layers[-1].outputs) <= set(outputs):
            self.layers.pop()  # the module is this one function
        names = [name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))]
        parameters = tuple(f"{path}.{name}" if path else name for name in names)
        self.layers.append(LayerRecord(self._numbered(path), _kind(module), frame.inputs, outputs, parameters))

    def _output(self, tensor: torch.Tensor) -> int:
        place = self._place(tensor)
        if place is not None and self.tensors[place].size == tensor.numel():
            return place
        return self._add(tensor)

    def _place(self, tensor: torch.Tensor) -> int | None:
        entry = self._places.get(tensor)
        return entry[1] if entry is not None and entry[0] == _version(tensor) else None

    def _places_of(self, read: Sequence[torch.Tensor]) -> dict[int, int]:
        """Return where the tensors are that were recorded, by their place among those that are read."""
        return {index: place for index, tensor in enumerate(read) if (place := self._place(tensor)) is not None}

    def _add(self, tensor: torch.Tensor) -> int:
        place = self._place(tensor)
        if place is None or self.tensors[place].size != tensor.numel():
            place = len(self.tensors)
            self.tensors.append(copied(tensor))
            self._places[tensor] = (_version(tensor), place)
        return place

    def _numbered(self, name: str) -> str:
        self._calls[name] = self._calls.get(name, 0) + 1
        return name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"


def copied(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor as an array of its own memory."""
    return array_of(tensor.detach().clone(memory_format=torch.contiguous_format).resolve_conj().resolve_neg(), {})


@contextmanager
def every_function_seen() -> Iterator[None]:
    """Let functions that torch writes in Python, as multi_head_attention_forward, show the functions that they are made of; keep to the layers.

    The fused path of inference goes around the layers within torch.nn.TransformerEncoderLayer.
    """
    functional: Any = torch.nn.functional
    shortcuts = {name: getattr(functional, name) for name in _SHORT_CUTS}
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        for name in shortcuts:
            setattr(functional, name, lambda *_: False)
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for name, function in shortcuts.items():
            setattr(functional, name, function)


def _name_of(func: Any) -> str:
    """Return what users call a function: "gelu" of gelu, gelu_ and aten.gelu.default, "add" of __radd__, "T" of the attribute."""
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":
        name = str(getattr(getattr(func, "__self__", None), "__name__", ""))
        return name if name in ("T", "mT", "data", "real", "imag") else ""
    if name in ("__set__", "__len__", "__repr__", "__format__", "__hash__", "__bool__", "__int__", "__float__"):
        return ""
    dunder = name.startswith("__")
    name = name.partition(".")[0].strip("_")
    if dunder and name[:1] in "ri" and name[1:] in _REFLECTED:
        name = name[1:]
    return "div" if name == "truediv" else name


def _tensors(result: object) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for part in result:
            yield from _tensors(part)


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # noqa: SLF001  the only way to see a write in place


def _kind(module: torch.nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return python_class_of(module)
    type_name = getattr(module, "type_name", None)  # of torch.export
    if callable(type_name) and isinstance(name := type_name(), str):
        return name
    return f"{type(module).__module__}.{type(module).__qualname__}"
