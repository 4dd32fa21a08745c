"""Whether a registered cause explains a node of a user's model that is off, as it would a kernel's: by formula, or by a plain entry."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from msgspec.structs import replace

from actconform.checking.flatten import wide
from actconform.checking.judge import against_bound, read_as, shown_values, with_exact_specials
from actconform.checking.runs import RunFailure
from actconform.elements.elementwise import Sample
from actconform.errors import Unsupported
from actconform.onnx.author.exporter import author
from actconform.onnx.evaluate.computation import attributes_of
from actconform.onnx.evaluate.element_types import FORMATS
from actconform.onnx.evaluate.error_bounds import Approximation, bounded_outputs
from actconform.onnx.nodes import ELEMENT_TYPES, OPSET, Nodes, graph_of
from actconform.testdata.kernel_vectors import TestVector, TestVectors
from actconform.tolerance.limits import row_tolerance, unary_tolerance
from actconform.types import DRIVER_EXPORTER, Case, Finding, FindingClass
from actconform.types.dtypes import DTYPES
from actconform.types.finding import NOWHERE
from actconform.types.kernel import f32
from actconform.verdict.causes.arithmetic import Arithmetic, admits
from actconform.verdict.causes.evaluation import WITHOUT_VALUE, Evaluation, Part, Piece
from actconform.verdict.causes.explain import Situation
from actconform.verdict.causes.graph import GraphFormula

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.flatten import Array, FlatNode
    from actconform.checking.result import LevelCheck, TensorCheck
    from actconform.checking.runs import RuntimeRuns
    from actconform.types import Kernel
    from actconform.types.cause import Cause, LibraryAccuracy
    from actconform.verdict.causes.arithmetic import Number

DTYPE_OF = {element_type: dtype for dtype, element_type in ELEMENT_TYPES.items()}
LAYOUT = (
    "axis",
    "axes",
    "keepdims",
    "noop_with_empty_axes",
)  # attributes by which rows lie in a tensor, not what they give
FLATTENED = 13  # below this opset Softmax and its like take all axes from `axis` on for one row
TENSOR = "y"


class KnownCause(NamedTuple):
    """A cause that explains a fault: its id, and a sentence."""

    id: str
    words: str


def cause_words(cause: Cause) -> str:
    """Return what a cause is, and where it is reported."""
    return f"{cause.reason} ({cause.link})"


class _Shown(NamedTuple):
    """What a node read and gave in a run, what it should have given, and which elements are beyond their bound, flat."""

    inputs: list[Array | None]
    got: Array
    wanted: Array
    off: NDArray[np.int64]


class _Call(NamedTuple):
    """A call of a kernel with what a node read: its test vector, and the elements that are off."""

    kernel: Kernel
    dtype: str
    vectors: TestVectors
    part: Part

    @classmethod
    def of(
        cls,
        kernel: Kernel,
        dtype: str,
        inputs: dict[str, Array],
        got: Array,
        wanted: Array,
        elements: NDArray[np.int64],
    ) -> _Call:
        """Return the call of a kernel; `elements` are flat indices into `got`."""
        fmt, unary = DTYPES[dtype], kernel.form == "unary"
        with np.errstate(invalid="ignore"):
            x, truth = inputs["x"].astype(np.float64), wanted.astype(np.float64)
        tiny = ((x != 0) & (np.abs(x) < fmt.smallest_normal)).any()
        vector = TestVector(
            regime="special" if not np.isfinite(x).all() else "subnormal" if tiny else "ordinary",
            inputs=inputs,
            cotangents=None,
            truth={TENSOR: truth},
            input_at={TENSOR: x if x.shape == truth.shape else x.max(axis=-1)},
            dtypes={TENSOR: got.dtype},
        )
        tolerance = unary_tolerance(kernel, "value", fmt, 0.0) if unary else row_tolerance(kernel, "value", fmt)
        sample = Sample(got=got.ravel(), truth=truth.ravel(), x=vector.input_at[TENSOR].ravel())
        piece = Piece(vector.regime, sample, elements)
        return cls(kernel, dtype, TestVectors(tolerance, [vector]), Part.of(TENSOR, [piece]))


def known_cause(runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck, tensor: TensorCheck) -> KnownCause | None:
    """Return the registered cause of a node that is off by itself; None where there is none.

    The node must be the whole graph of a kernel, whatever its parameters. A formula must admit every element that is over its bound.
    Where none does, an entry without a formula may stand for all of them: by the class of the difference, NaN or infinities lost or
    made, or any size. The node runs once more, with what it reads marked.
    """
    facts = runs.start()
    node = next(node for node in sample.graph.nodes if node.name == tensor.node)
    if isinstance(facts, RunFailure) or node.computation is None or node.computation.node.domain:
        return None
    dtype = DTYPE_OF.get(sample.graph.types.get(node.proto.input[0], 0) if node.proto.input else 0)
    if dtype is None or node.proto.output[0] != tensor.tensor:
        return None
    kernels = [kernel for each in runs.kernels.values() if (kernel := _as_kernel(node, each, dtype))]
    shown = _shown(runs, sample, level, node) if kernels else None
    if shown is None or not shown.off.size:
        return None
    calls = [_call(node, kernel, dtype, shown) for kernel in kernels]
    matched = [(_situation(runs, facts, call), call) for call in calls if call is not None]
    for situation, call in matched:
        for cause in _by_formula(situation, call):
            return KnownCause(cause.id, f"known cause {cause.id}: {cause_words(cause)}")
    for situation, call in matched:
        for cause in _plainly(situation, call):
            return KnownCause(cause.id, f"may be known cause {cause.id}: {cause_words(cause)}")
    return None


def _situation(runs: RuntimeRuns, facts: Mapping[str, str], call: _Call) -> Situation:
    case = Case(call.kernel.name, "value", call.dtype, f"{DRIVER_EXPORTER}+{runs.registered_as}")
    return Situation(case, runs.register, runs.register.active(case, facts), facts, runs.kernels, None)


def _by_formula(situation: Situation, call: _Call) -> Iterator[Cause]:
    """Yield the causes whose formulas admit every element; the node itself is a formula where all numbers are finite."""
    evaluation = Evaluation(situation.case, call.kernel, call.vectors, situation.facts)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        got, wanted = call.part.sample.got.astype(np.float64), call.part.sample.truth
    finite = bool(np.isfinite(got).all() and np.isfinite(wanted).all())
    for cause in sorted(situation.active, key=lambda cause: cause.graph):
        library = situation.library(cause)
        if library is None:
            continue
        left = np.ones(got.shape, np.bool_)
        for text in cause.texts(situation.case, TENSOR):
            left &= ~_admitted(partial(evaluation.by_text, text, library, call.part), got)
        if cause.graph and finite:
            left &= ~_admitted(partial(_by_graph, evaluation, library, call), got)
        if not left.any():
            yield cause


def _by_graph(evaluation: Evaluation, library: LibraryAccuracy, call: _Call) -> Number:
    graph = GraphFormula(author(call.kernel, call.dtype).model, library.operators)
    return evaluation.by_graph(graph, Arithmetic.of(library, DTYPES[call.dtype], evaluation.facts), call.part)


def _admitted(evaluate: Callable[[], Number], got: NDArray[np.float64]) -> NDArray[np.bool_]:
    try:
        return admits(evaluate(), got, zero_sign=False)
    except WITHOUT_VALUE:
        return np.zeros(got.shape, np.bool_)


def _plainly(situation: Situation, call: _Call) -> Iterator[Cause]:
    """Yield the causes without a formula that cover every class of difference among the elements."""
    findings = list(_findings(call))
    for cause in situation.active:
        if all(any(cover.matches(situation.case, finding) for cover in cause.covers) for finding in findings):
            yield cause


def _findings(call: _Call) -> Iterator[Finding]:
    """Yield a finding for each class of difference; how large an error is stays open, so that no entry with a bound covers it."""
    with np.errstate(invalid="ignore"):
        got, wanted = call.part.sample.got.astype(np.float64), call.part.sample.truth
    left = np.ones(got.shape, np.bool_)
    for class_, mask in (
        (FindingClass.NAN_MADE, np.isnan(got)),
        (FindingClass.NAN_LOST, np.isnan(wanted)),
        (FindingClass.INF, np.isinf(got) | np.isinf(wanted)),
        (FindingClass.SCALED_ERROR, left.copy()),
    ):
        count = int(np.count_nonzero(left & mask))
        left &= ~mask
        if count:
            size = np.inf if class_ == FindingClass.SCALED_ERROR else 0.0
            yield Finding(
                class_=class_,
                count=count,
                regime=call.part.pieces[0].regime,
                tensor=TENSOR,
                interval=NOWHERE,
                worst=None,
                magnitude=size,
            )


def _as_kernel(node: FlatNode, kernel: Kernel, dtype: str) -> Kernel | None:
    """Return the kernel, with the node's parameters, where its authored graph is this one node; None elsewhere."""
    written = _written(kernel, dtype)
    if written is None or written.op_type != node.proto.op_type or node.computation is None:
        return None
    if kernel.form == "row" and kernel.axis != -1:
        return None  # its rows are those of a kernel along the last axis
    own, wanted = _attributes(attributes_of(written, OPSET)), _attributes(node.computation.node.attributes)
    parameters = {
        name: wanted.get(next((key for key, number in own.items() if number == f32(value)), ""), value)
        for name, value in kernel.parameters.items()
    }
    kernel = replace(kernel, parameters=parameters)
    written = _written(kernel, dtype)
    return kernel if written is not None and _attributes(attributes_of(written, OPSET)) == wanted else None


def _written(kernel: Kernel, dtype: str) -> Any:
    """Return the one node of a kernel's authored graph; None where it has none, or several."""
    nodes = Nodes(dtype)
    try:
        graph_of(kernel)(nodes, kernel)
    except Unsupported:
        return None
    return nodes.nodes[0] if len(nodes.nodes) == 1 else None


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: f32(value) if isinstance(value, float) else value
        for name, value in attributes.items()
        if name not in LAYOUT
    }


def _shown(runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck, node: FlatNode) -> _Shown | None:
    """Run the node once more, and return what it read and gave; None where the runtime does not show it."""
    values = {
        **sample.graph.constants,
        **shown_values(runs, sample, [*node.inputs, node.outputs[0]], level.name),
    }
    if node.computation is None or any(name not in values for name in (*node.inputs, node.outputs[0])):
        return None
    got = values[node.outputs[0]]
    read: list[Approximation | None] = [read_as(values[name]) if name else None for name in node.proto.input]
    try:
        bounded = bounded_outputs(node.computation, node.types, read, [wide(got), *[None] * (len(node.types) - 1)])[0]
    except Unsupported:
        return None
    bounded = with_exact_specials(bounded, read)
    wanted = np.asarray(bounded.value)
    if wanted.shape != got.shape:
        return None
    ratio = against_bound(np.asarray(wide(got)), wanted, bounded.error, FORMATS.get(node.types[0])).ratio
    inputs = [values[name] if name else None for name in node.proto.input]
    return _Shown(inputs, got, wanted, np.flatnonzero(ratio > 1.0))


def _call(node: FlatNode, kernel: Kernel, dtype: str, shown: _Shown) -> _Call | None:
    """Return the elements that are off as elements of a call of the kernel; None where it takes other tensors."""
    given = [np.asarray(array) for array in shown.inputs if array is not None]
    off = np.zeros(shown.got.size, np.bool_)
    off[shown.off] = True
    if kernel.form == "unary" or len(kernel.inputs) > 1:
        tensors = [np.broadcast_to(array, shown.got.shape).ravel()[off] for array in given]
        got, wanted, elements = shown.got.ravel()[off], shown.wanted.ravel()[off], np.arange(shown.off.size)
        if kernel.form == "row":  # several inputs that are combined element by element: one row of them
            tensors[0], wanted = tensors[0][None], wanted[None]
    else:
        whole, axes = kernel.output_width != "one", _row_axes(node, shown.inputs)
        marked = _rows(off.reshape(shown.got.shape), axes) if whole else off[:, None]
        rows = marked.any(axis=1)
        tensors = [_rows(given[0], axes)[rows]]
        got, wanted = (
            _rows(array, axes)[rows] if whole else array.reshape(-1)[rows] for array in (shown.got, shown.wanted)
        )
        elements = np.flatnonzero(marked[rows])
    if len(kernel.inputs) > len(tensors):
        return None
    inputs = dict(zip(kernel.inputs, tensors, strict=False))
    return _Call.of(kernel, dtype, inputs, got, wanted, elements)


def _row_axes(node: FlatNode, inputs: Sequence[Array | None]) -> tuple[int, ...]:
    """Return the axes along which a row of a node's first input lies."""
    assert node.computation is not None
    attributes, opset = node.computation.node.attributes, node.computation.node.opset
    rank = np.asarray(inputs[0]).ndim
    axes = inputs[1] if len(inputs) > 1 and inputs[1] is not None else attributes.get("axes")
    if "axis" in attributes:
        axis = attributes["axis"] % max(rank, 1)
        flattened = opset < FLATTENED and node.proto.op_type in ("Softmax", "LogSoftmax", "Hardmax")
        return tuple(range(axis, rank)) if flattened else (axis,)
    return tuple(range(rank)) if axes is None or not len(axes) else tuple(int(axis) % rank for axis in np.ravel(axes))


def _rows(array: Array, axes: tuple[int, ...]) -> Array:
    """Return a tensor as a matrix whose rows lie along these axes."""
    moved = np.moveaxis(array, axes, range(-len(axes), 0))
    return moved.reshape(-1, int(np.prod([array.shape[axis] for axis in axes])))
