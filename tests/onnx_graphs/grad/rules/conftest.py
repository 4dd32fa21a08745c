"""One operator's gradients against torch's: in float64 by onnx's reference evaluator and ours, in float32 by ONNX Runtime."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.evaluate.reference import Erf
from actconform.onnx.grad.reverse_mode import add_gradients

DOUBLE = 1e-12  # of the largest gradient
SINGLE = 2e-5
NONE: dict[int, tuple[int, ...]] = {}


class Setting(NamedTuple):
    """A number that an operator takes as an input and no gradient flows to: a constant of the graph."""

    value: np.ndarray


class ConvTranspose(OpRun):
    """As the standard defines it: onnx's own splits the kernel of several groups wrongly, and knows no output_shape."""

    op_domain = ""

    def _run(self, x, w, bias=None, **given):
        axes, group = x.ndim - 2, given["group"]
        strides, dilations = (given.get(name) or [1] * axes for name in ("strides", "dilations"))
        growth, pads = given.get("output_padding") or [0] * axes, given.get("pads") or [0] * 2 * axes
        full = [
            (n - 1) * s + (k - 1) * d + 1 + more
            for n, s, k, d, more in zip(x.shape[2:], strides, w.shape[2:], dilations, growth, strict=True)
        ]
        y = np.zeros((x.shape[0], group, w.shape[1], *full))
        parts, kernels = (np.stack(np.split(each, group, axis)) for each, axis in ((x, 1), (w, 0)))
        for at in np.ndindex(*w.shape[2:]):
            places = [
                slice(i * d, i * d + (n - 1) * s + 1, s)
                for i, d, n, s in zip(at, dilations, x.shape[2:], strides, strict=True)
            ]
            y[:, :, :, *places] += np.einsum("gnc...,gcm->ngm...", parts, kernels[:, :, :, *at])
        asked = given.get("output_shape") or []
        if given["auto_pad"].startswith("SAME"):
            asked = asked or [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        if asked:
            totals = [n - kept for n, kept in zip(full, asked, strict=True)]
            less, more = [n // 2 for n in totals], [n - n // 2 for n in totals]
            pads = less + more if given["auto_pad"] == "SAME_UPPER" else more + less
        kept = [slice(pads[axis], n - pads[axes + axis]) for axis, n in enumerate(full)]
        y = y.reshape(x.shape[0], -1, *full)[:, :, *kept]
        return (y if bias is None else y + bias.reshape(-1, *[1] * axes),)


def windows(x, given):
    """Yield each place of a pool's output with the places of the image, beyond its edges too, that its window sees.

    As the standard defines it. onnx's own pools fail with dilations, and put the windows of SAME_LOWER and of ceil_mode
    elsewhere.
    """
    kernel, sizes = given["kernel_shape"], x.shape[2:]
    axes = len(kernel)
    strides, dilations = (given.get(name) or [1] * axes for name in ("strides", "dilations"))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = given.get("pads") or [0] * 2 * axes
    if given["auto_pad"].startswith("SAME"):
        totals = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(sizes, strides, spans, strict=True)]
        less, more = [n // 2 for n in totals], [n - n // 2 for n in totals]
        pads = less + more if given["auto_pad"] == "SAME_UPPER" else more + less
    ends = [n + pad for n, pad in zip(sizes, pads[axes:], strict=True)]
    counts = []
    for n, s, r, before, end in zip(sizes, strides, spans, pads, ends, strict=False):
        count = (-(-(before + end - r) // s) if given["ceil_mode"] else (before + end - r) // s) + 1
        counts.append(count - ((count - 1) * s >= n + before))  # none begins in the padding behind
    for place in np.ndindex(*x.shape[:2], *counts):
        corner = [i * s - pad for i, s, pad in zip(place[2:], strides, pads, strict=False)]
        seen = [tuple(c + i * d for c, i, d in zip(corner, at, dilations, strict=True)) for at in np.ndindex(*kernel)]
        yield place, [at for at in seen if all(i < end for i, end in zip(at, ends, strict=True))]


def inside(seen, x):
    return [at for at in seen if all(0 <= i < n for i, n in zip(at, x.shape[2:], strict=True))]


class MaxPool(OpRun):
    op_domain = ""

    def _run(self, x, **given):
        y, where = {}, {}
        order = "F" if given["storage_order"] else "C"
        for place, seen in windows(x, given):
            best = max(inside(seen, x), key=lambda at: x[*place[:2], *at])  # the first of equal ones
            y[place] = x[*place[:2], *best]
            images = place[0] * x.shape[1] + place[1]
            where[place] = images * np.prod(x.shape[2:]) + np.ravel_multi_index(best, x.shape[2:], order=order)
        return table(y), table(where)


class AveragePool(OpRun):
    op_domain = ""

    def _run(self, x, **given):
        y = {}
        for place, seen in windows(x, given):
            values = [x[*place[:2], *at] for at in inside(seen, x)]
            y[place] = sum(values) / (len(seen) if given["count_include_pad"] else len(values))
        return (table(y),)


def table(values):
    return np.array(list(values.values())).reshape(np.max(list(values), axis=0) + 1)


def operator(op_type, function):
    """Return an operator for the evaluator where onnx's own is missing or wrong in float64."""
    return type(op_type, (OpRun,), {"op_domain": "", "_run": lambda _, *x, **given: (function(*x, **given),)})


def _normalized_by_norm(x, axis, p):  # onnx's own has no absolute value
    return x / np.sum(np.abs(x) ** p, axis, keepdims=True) ** (1 / p)


def _normalized_by_deviation(x, axes):  # onnx's own is in float32
    centred = x - x.mean(tuple(axes), keepdims=True)
    return centred / (np.sqrt((centred**2).mean(tuple(axes), keepdims=True)) + 1e-9)


def _normalized_by_neighbours(x, alpha, beta, bias, size):  # onnx's own takes the batch for the channels
    windows = [(max(c - (size - 1) // 2, 0), c + size // 2 + 1) for c in range(x.shape[1])]
    near = np.stack([(x[:, first:end] ** 2).sum(1) for first, end in windows], 1)
    return x / (float(bias) + float(alpha) / size * near) ** float(beta)


def _normalized_by_group(x, scale, bias, epsilon, num_groups, stash_type):  # onnx's own is in float32
    del stash_type
    groups = x.reshape(len(x), num_groups, -1)
    centred = groups - groups.mean(2, keepdims=True)
    y = (centred / np.sqrt((centred**2).mean(2, keepdims=True) + float(epsilon))).reshape(x.shape)
    channels = -1, *[1] * (x.ndim - 2)
    return y * scale.reshape(channels) + bias.reshape(channels)


def _gathered(x, indices, axis):  # onnx's own takes indices of the shape of x alone
    others = [slice(None) if at == axis % x.ndim else slice(n) for at, n in enumerate(indices.shape)]
    return np.take_along_axis(x[tuple(others)], indices, axis)


OPERATORS = [
    Erf,
    ConvTranspose,
    MaxPool,
    AveragePool,
    operator("GlobalLpPool", lambda x, p: np.sum(np.abs(x) ** p, tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)),
    operator("LpNormalization", _normalized_by_norm),
    operator("MeanVarianceNormalization", _normalized_by_deviation),
    operator("GatherElements", _gathered),
    operator("GroupNormalization", _normalized_by_group),
    operator("LRN", _normalized_by_neighbours),
]


@pytest.fixture(scope="session")
def setting():
    return lambda values, dtype=np.int64: Setting(np.asarray(values, dtype=dtype))


@pytest.fixture(scope="session")
def graph_of():
    return _graph


@pytest.fixture(scope="session")
def agrees():
    """Return the check: agrees(op_type, inputs, forward, **attributes).

    `inputs` are float64 arrays, integer arrays, settings or None. `forward` gets them, floats as torch tensors, and returns
    the output, or a tuple of those outputs that it has; cotangents are random. `free` has the axes, by input, whose sizes
    are left open, equal ones under one name. `wrt` names inputs, by default all floats; without `exact` or `runs` onnx's
    evaluator or ONNX Runtime is left out; exact="ours" takes our evaluator for onnx's, where that lacks an operator.
    """
    return _agrees


@pytest.fixture(scope="session")
def transposes():
    """Return the check that dx is the transpose of a linear operator: transposes(op_type, inputs, **attributes)."""
    return _transposes


def _graph(op_type, inputs, ranks, *, opset=22, element_type=TensorProto.DOUBLE, free=NONE, **attributes):
    """Return a model of one node, its outputs y0, y1, ... and its inputs x0, x1, ..., in that element type."""
    names = ["" if each is None else f"x{i}" for i, each in enumerate(inputs)]
    values, constants = [], []
    for i, (name, each) in enumerate(zip(names, inputs, strict=True)):
        if isinstance(each, Setting):
            constants.append(numpy_helper.from_array(each.value, name))
        elif each is not None:
            of = element_type if each.dtype == np.float64 else helper.np_dtype_to_tensor_dtype(each.dtype)
            open_axes = free.get(i, ())
            shape = [f"n{n}" if axis in open_axes else n for axis, n in enumerate(each.shape)]
            values.append(helper.make_tensor_value_info(name, of, shape))
    given = [f"y{i}" for i in range(len(ranks))]
    results = [onnx.ValueInfoProto(name=name) for name in given]
    node = helper.make_node(op_type, names, given, name="node", **attributes)
    graph = helper.make_graph([node], "one", values, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for result, rank in zip(inferred.graph.output, ranks, strict=True):  # what onnx does not infer an exporter declares
        if not result.type.tensor_type.HasField("shape"):
            declared = helper.make_tensor_value_info(result.name, element_type, [None] * rank)
            result.CopyFrom(declared)
    return inferred


def _agrees(
    op_type,
    inputs,
    forward,
    *,
    exact=True,
    runs=True,
    outputs=None,
    opset=22,
    free=NONE,
    wrt=None,
    tolerance=SINGLE,
    **attributes,
):
    torch = pytest.importorskip("torch")
    leaves = [
        torch.tensor(each, requires_grad=True) if isinstance(each, np.ndarray) and each.dtype == np.float64 else each
        for each in inputs
    ]
    results = forward(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    rng = np.random.default_rng(0)
    cotangents = [rng.standard_normal(tuple(result.shape)) for result in results]
    floats = {f"x{i}": leaf for i, leaf in enumerate(leaves) if torch.is_tensor(leaf)}
    wrt = {name: leaf for name, leaf in floats.items() if wrt is None or name in wrt}
    expected = torch.autograd.grad(results, list(wrt.values()), [torch.tensor(each) for each in cotangents])
    feeds = {f"x{i}": each for i, each in enumerate(inputs) if isinstance(each, np.ndarray)}
    feeds |= {f"ct_y{i}": each for i, each in enumerate(cotangents)}
    chosen = [f"y{i}" for i in range(len(results))]
    truth = {name: result.detach().numpy() for name, result in zip(chosen, results, strict=True)}
    truth |= {f"d_{name}": gradient.numpy() for name, gradient in zip(wrt, expected, strict=True)}

    ranks = [result.ndim for result in results]
    ranks += [0] * ((outputs or 0) - len(ranks))

    def forward_graph(element_type):
        return _graph(op_type, inputs, ranks, opset=opset, element_type=element_type, free=free, **attributes)

    @cache
    def graph(element_type):
        return add_gradients(forward_graph(element_type), list(wrt), chosen).SerializeToString()

    for half in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        if _is_typed(forward_graph(half).SerializeToString()):
            assert _is_typed(graph(half))
    if exact:
        evaluate = _in_ours if exact == "ours" else _in_reference
        close(evaluate(graph(TensorProto.DOUBLE), feeds), truth, DOUBLE)
    close(*_in_evaluator(graph(TensorProto.DOUBLE), feeds, truth))
    if runs:
        single = {name: each.astype(np.float32) if each.dtype == np.float64 else each for name, each in feeds.items()}
        close(_in_onnxruntime(graph(TensorProto.FLOAT), single), truth, tolerance)


def _in_evaluator(model, feeds, truth):
    """Return its answers, the truth, and the tolerance: statistics of a normalization may be declared as float32."""
    declared = {each.name: each.type.tensor_type.elem_type for each in onnx.load_from_string(model).graph.input}
    given = {name: each.astype(helper.tensor_dtype_to_np_dtype(declared[name])) for name, each in feeds.items()}
    return (
        CorrectlyRoundedEvaluator(model).forward(given),
        truth,
        SINGLE if TensorProto.FLOAT in declared.values() else DOUBLE,
    )


def _is_typed(model):
    """Say whether the standard defines every node for the types that reach it."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def _transposes(op_type, inputs, *, runs=True, exact=True, opset=22, free=NONE, **attributes):
    rng = np.random.default_rng(0)
    feeds = {f"x{i}": each for i, each in enumerate(inputs) if isinstance(each, np.ndarray)}

    def check(evaluate, element_type, tolerance):
        dtype = helper.tensor_dtype_to_np_dtype(element_type)
        model = _graph(
            op_type, inputs, [inputs[0].ndim], opset=opset, element_type=element_type, free=free, **attributes
        )
        given = {name: each.astype(dtype) if each.dtype == np.float64 else each for name, each in feeds.items()}
        y = evaluate(model.SerializeToString(), given)["y0"]
        g = rng.standard_normal(y.shape).astype(dtype)
        both = evaluate(add_gradients(model, ["x0"]).SerializeToString(), given | {"ct_y0": g})
        assert both["d_x0"].shape == given["x0"].shape
        scale = float(np.linalg.norm(g) * np.linalg.norm(y))
        assert np.sum(both["d_x0"] * given["x0"]) == pytest.approx(np.sum(g * y), abs=tolerance * scale)

    if exact:
        check(_in_reference, TensorProto.DOUBLE, DOUBLE)
    check(lambda model, given: CorrectlyRoundedEvaluator(model).forward(given), TensorProto.DOUBLE, DOUBLE)
    if runs:
        check(_in_onnxruntime, TensorProto.FLOAT, SINGLE)


def _in_reference(model, feeds):
    evaluator = ReferenceEvaluator(model, new_ops=OPERATORS)
    return dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))


def _in_ours(model, feeds):
    return CorrectlyRoundedEvaluator(model, rounding=False).forward(feeds)


@pytest.fixture(scope="session")
def by_differences():
    """Return the check of a model's gradients along a random direction against central differences, in float64.

    by_differences(model, feeds, wrt): the model is of doubles. Returns the model with gradients.
    """
    return _by_differences


def _by_differences(model, feeds, wrt, step=1e-5):
    rng = np.random.default_rng(0)
    made = add_gradients(model, wrt)
    onnx.checker.check_model(made, full_check=True)
    value = CorrectlyRoundedEvaluator(model.SerializeToString(), rounding=False).forward
    floats = [name for name, each in value(feeds).items() if each.dtype == np.float64]
    cotangents = {f"ct_{name}": rng.standard_normal(value(feeds)[name].shape) for name in floats}
    got = _in_ours(made.SerializeToString(), feeds | cotangents)
    for name in wrt:
        direction = rng.standard_normal(feeds[name].shape)

        def along(distance, name=name, direction=direction):
            y = value(feeds | {name: feeds[name] + distance * direction})
            return sum(np.sum(cotangents[f"ct_{each}"] * y[each]) for each in floats)

        slope = (along(step) - along(-step)) / (2 * step)
        assert got[f"d_{name}"].shape == feeds[name].shape
        assert np.sum(got[f"d_{name}"] * direction) == pytest.approx(slope, rel=1e-7, abs=1e-8), name
    return made


def _in_onnxruntime(model, feeds):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feeds), strict=True))


def close(got, truth, tolerance):
    for name, wanted in truth.items():
        assert got[name].shape == wanted.shape, name
        scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=tolerance * scale, err_msg=name)
