"""One run of a traced model with the values of all its layers: modules as they were called, and the primitives between them."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import msgspec

from actconform.types.trained import LayerRecord
from actconform_jax.called_function import JAX, called_function
from actconform_jax.trained_jaxpr import Evaluator, computed
from actconform_jax.trained_weights import is_float, modules_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jax.extend import core

    from actconform_jax.called_function import CalledFunction
    from actconform_jax.trained_jaxpr import Inner

SCOPE = "actconform-call-"  # of a module's call in the stack of names, with its place among all calls
LIBRARIES = ("flax", "equinox")
# What gives the values that it reads in another shape or order.
LAYOUT = frozenset(
    ["reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "copy", "copy_p", "stop_gradient", "device_put", "name",
     "optimization_barrier", "sharding_constraint"]
)  # fmt: skip


class ModuleCall(NamedTuple):
    """One call of a module while the model was traced."""

    module: Any
    path: str
    around: int | None
    """The call within which it was called, by its place."""

    @property
    def kind(self) -> str:
        """The class."""
        return f"{type(self.module).__module__}.{type(self.module).__qualname__}"


class ModuleCalls:
    """The calls of a model's modules, told by scopes in what is traced while it is `seen`."""

    def __init__(self) -> None:
        self.calls: list[ModuleCall] = []
        self.failed = ""
        """The path and class of the innermost module that raised."""
        self._open: list[int] = []

    @contextlib.contextmanager
    def seen(self, model: Callable[..., Any]) -> Iterator[None]:
        """Let every module of the model enter a scope of its own when it is called."""
        paths = {id(module): path for path, module in modules_of(model) if module is not model}
        classes = {_defining(type(module)) for _, module in modules_of(model) if module is not model}
        originals = {each: vars(each)["__call__"] for each in classes if each is not None}
        try:
            for each, original in originals.items():
                type.__setattr__(each, "__call__", self._scoped(original, paths))
            yield
        finally:
            for each, original in originals.items():
                type.__setattr__(each, "__call__", original)

    def _scoped(self, original: Any, paths: Mapping[int, str]) -> Any:
        @functools.wraps(original)
        def scoped(module: Any, *args: Any, **kwargs: Any) -> Any:
            again = bool(self._open) and self.calls[self._open[-1]].module is module  # super().__call__
            if again or id(module) not in paths:
                return original(module, *args, **kwargs)
            place, path = len(self.calls), paths[id(module)]
            self.calls.append(ModuleCall(module, path, self._open[-1] if self._open else None))
            self._open.append(place)
            try:
                with jax.named_scope(f"{SCOPE}{place}"):
                    return original(module, *args, **kwargs)
            except Exception:
                self.failed = self.failed or f"{path} ({type(module).__name__})"
                raise
            finally:
                self._open.pop()

        return scoped


class Frame(NamedTuple):
    """What is being computed: a call of a module or of a function of JAX's."""

    place: int
    """Its own, in the order of calls."""
    path: str
    """Of the module, "" of the model; of a function "PATH:relu"."""
    kind: str
    closed: bool
    """Whether it is one layer, and nothing within is recorded."""


class Value:
    """An array with what it was computed from."""

    def __init__(
        self,
        array: Any,
        sources: frozenset[int] = frozenset(),
        frames: tuple[Frame, ...] = (),
        weights: frozenset[str] = frozenset(),
    ) -> None:
        self.array = array
        self.sources = sources
        """Places of the recorded tensors from which it was computed; empty for weights and constants."""
        self.frames = frames
        """In which it was computed, the outermost first."""
        self.weights = weights
        """Names of the weights from which alone it was computed."""
        self.place: int | None = None
        """Of the recorded tensor that it is, or lays out anew."""


class LayerRecorder(Evaluator):
    """Records while it computes: tensors of floats with more than one element that depend on the model's inputs.

    A module of a library in which no other module is called is one layer, and so is a function of JAX's (`jax.nn.gelu`).
    What only lays a recorded tensor out anew counts as that tensor. Control flow is one layer.
    """

    def __init__(self, calls: Sequence[ModuleCall], parameters: Sequence[str], *, wide: bool) -> None:
        super().__init__(wide=wide)
        self.tensors: list[Any] = []
        self._calls = calls
        self._composed = {call.around for call in calls}
        self._owned = _owned([call.path for call in calls], parameters)
        self._scopes: tuple[str, ...] = ()
        self._functions: tuple[Frame, ...] = ()
        """That of JAX's which an inner program is."""
        self._last: tuple[CalledFunction | None, Frame | None] = (None, None)
        """The function of the last equation."""
        self._time = itertools.count()
        self._frames: dict[Frame, list[int]] = {}
        """Of each frame when it began and when it ended."""
        self._reads: dict[Frame, list[int]] = {}
        self._gives: dict[Frame, list[int]] = {}
        self._weights: dict[Frame, list[str]] = {}
        self._records: list[tuple[int, LayerRecord]] = []

    def layers(self, kind: str, inputs: Sequence[int], outputs: Sequence[int]) -> list[LayerRecord]:
        """Return the calls in the order in which they ended, last the model itself."""
        counts: Counter[str] = Counter()
        begun: list[tuple[list[int], int, Frame | LayerRecord]] = [
            (span, depth, frame) for depth, (frame, span) in enumerate(self._frames.items())
        ]
        entries: list[tuple[list[int], int, Frame | LayerRecord]] = [
            ([time, time], len(begun), record) for time, record in self._records
        ]
        ended = []
        for (_, end), depth, entry in sorted([*begun, *entries], key=lambda each: (each[0][0], each[1])):
            record = entry if isinstance(entry, LayerRecord) else self._call_record(entry)
            counts[record.name] += 1
            if counts[record.name] > 1:
                record = msgspec.structs.replace(record, name=f"{record.name}#{counts[record.name]}")
            ended.append((end, -depth, record))
        ends = tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys(outputs))
        records = [record for _, _, record in sorted(ended, key=lambda each: each[:2]) if record.outputs]
        return [*records, LayerRecord("", kind, *ends, self._owned.get("", ()))]

    def _call_record(self, frame: Frame) -> LayerRecord:
        reads, gives = tuple(dict.fromkeys(self._reads[frame])), tuple(dict.fromkeys(self._gives[frame]))
        return LayerRecord(frame.path, frame.kind, reads, gives, self._parameters(frame))

    def input(self, array: Any) -> Value:
        """Return an input of the model, recorded."""
        value = Value(array)
        self._record(value)
        return value

    def output(self, value: Value) -> int | None:
        """Return the place of an output of the model; None where it depends on no input."""
        self._leave(value, ())
        return self._placed(value) if value.sources else None

    def constant(self, value: Any, dtype: Any) -> Value:
        return Value(super().constant(value, dtype))

    def call(self, eqn: core.JaxprEqn, inner: Inner, operands: Sequence[Any]) -> list[Any]:
        """Return what an inner program gives; one that JAX itself is made of is a function."""
        scopes, functions = self._scopes, self._functions
        self._scopes = (*scopes, *_scopes(eqn))
        if inner.file.startswith(JAX) and not any(frame.closed for frame in self._stack(eqn)):
            self._functions = (self._function(inner.name.strip("_")),)
        try:
            return super().call(eqn, inner, operands)
        finally:
            self._scopes, self._functions = scopes, functions

    def operation(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
        """Return what a primitive gives, recorded unless a layer around it is one."""
        scopes, self._scopes = self._scopes, (*self._scopes, *_scopes(eqn))
        try:
            return self._operation(eqn, operands)
        finally:
            self._scopes = scopes

    def _operation(self, eqn: core.JaxprEqn, operands: Sequence[Value]) -> list[Value]:
        stack, now = self._stack(eqn), next(self._time)
        for frame in stack:
            self._frames.setdefault(frame, [now, now])[1] = now
            for each in (self._reads, self._gives, self._weights):
                each.setdefault(frame, [])
        for value in operands:
            self._leave(value, stack)
            self._enter(value, stack)
        sources = frozenset().union(*(value.sources for value in operands))
        weights = frozenset().union(*(value.weights for value in operands))
        arrays = computed(eqn, [value.array for value in operands], wide=self.wide)
        results = [Value(array, sources, stack, frozenset() if sources else weights) for array in arrays]
        name = eqn.primitive.name
        if name in LAYOUT and operands[0].sources and len(results) == 1:
            results[0].place = operands[0].place
        elif sources and not any(frame.closed for frame in stack):
            self._record_primitive(name, now, sources, weights, results)
        return results

    def _record_primitive(
        self, name: str, now: int, sources: frozenset[int], weights: frozenset[str], results: Sequence[Value]
    ) -> None:
        places = tuple(self._record(each) for each in results if is_float(each.array) and each.array.size > 1)
        if places:
            path = f"{self._path()}:{name}"
            record = LayerRecord(path, f"function {name}", tuple(sorted(sources)), places, tuple(sorted(weights)))
            self._records.append((now, record))

    def _leave(self, value: Value, stack: tuple[Frame, ...]) -> None:
        """Record a value as an output of the layers that it leaves, now that it is read outside of them."""
        left = [frame for frame in value.frames if frame not in stack]
        if not left or not value.sources or not is_float(value.array) or value.array.size < 2:
            return
        place = self._placed(value)
        for frame in left:
            if place not in self._reads[frame]:
                self._gives[frame].append(place)

    def _enter(self, value: Value, stack: tuple[Frame, ...]) -> None:
        for frame in stack:
            if frame not in value.frames:
                self._reads[frame] += sorted(value.sources if value.place is None else {value.place})
                self._weights[frame] += sorted(value.weights)

    def _placed(self, value: Value) -> int:
        """Return the place of a value, which is recorded unless it lies there in full."""
        if value.place is None or self.tensors[value.place].size != value.array.size:
            return self._record(value)
        return value.place

    def _record(self, value: Value) -> int:
        value.place = len(self.tensors)
        value.sources = frozenset((value.place,))
        self.tensors.append(value.array)
        return value.place

    def _parameters(self, frame: Frame) -> tuple[str, ...]:
        if ":" in frame.path:
            return tuple(dict.fromkeys(self._weights[frame]))
        return self._owned.get(frame.path, ())

    def _stack(self, eqn: core.JaxprEqn) -> tuple[Frame, ...]:
        """Return the calls of modules that are open at an equation, the outermost first, then that of a function."""
        frames = []
        for scope in self._scopes:
            if scope.startswith(SCOPE):
                place = int(scope.removeprefix(SCOPE))
                call = self._calls[place]
                library = type(call.module).__module__.partition(".")[0] in LIBRARIES
                frames.append(Frame(place, call.path, call.kind, closed=library and place not in self._composed))
        if self._functions or any(frame.closed for frame in frames):
            self._last = (None, None)
            return (*frames, *self._functions)
        function = called_function(eqn)
        if function is None:
            self._last = (None, None)
            return tuple(frames)
        path = f"{self._path()}:{function.name}"
        if self._last[0] != function or self._last[1] is None or self._last[1].path != path:
            self._last = (function, self._function(function.name))
        return (*frames, self._last[1])  # type: ignore[arg-type]

    def _function(self, name: str) -> Frame:
        return Frame(len(self._calls) + next(self._time), f"{self._path()}:{name}", f"function {name}", closed=True)

    def _path(self) -> str:
        """Return the path of the innermost module, and the user's own scopes within it."""
        path: list[str] = []
        for scope in self._scopes:
            if scope.startswith(SCOPE):
                path = [self._calls[int(scope.removeprefix(SCOPE))].path]
            elif not scope.startswith("eqx.nn."):  # equinox's own name of the class
                path.append(scope.replace("/", ".").replace(":", "."))
        return ".".join(filter(None, path))


def _scopes(eqn: core.JaxprEqn) -> tuple[str, ...]:
    """Return the names in which an equation was traced; transformations, such as vmap, are none."""
    return tuple(each.name for each in eqn.source_info.name_stack.stack if type(each).__name__ == "Scope")


def _defining(kind: type) -> type | None:
    return next((base for base in kind.__mro__ if "__call__" in vars(base) and base is not object), None)


def _owned(paths: Sequence[str], parameters: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the parameters of each module itself: those whose path begins with its own and with that of no module within."""
    owned: dict[str, list[str]] = {}
    modules = set(paths)
    for name in parameters:
        parts = name.split(".")
        owner = next((path for end in range(len(parts) - 1, 0, -1) if (path := ".".join(parts[:end])) in modules), "")
        owned.setdefault(owner, []).append(name)
    return {path: tuple(names) for path, names in owned.items()}
