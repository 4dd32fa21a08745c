"""The bounds of layers are wide enough for healthy implementations in any order of summation, and narrow enough for faults."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
from numpy.lib.stride_tricks import sliding_window_view

import actconform.oracle.layers.model  # noqa: F401  registers the formulas
from actconform.catalog.models.layer_kinds import CLIP, KINDS, LOSSES, same_pads
from actconform.catalog.models.zoo import networks
from actconform.errors import Unsupported
from actconform.oracle.layers.model import reading, values
from actconform.oracle.layers.registry import Reading, formula_of
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.tolerance.layer_bounds import layer_bound
from actconform.types.dtypes import DTYPES
from actconform.types.model import Layer

STORAGE = {"f32": np.float32, "f16": np.float16}
SEEDS = range(20)


class Drawn:
    """Draws what a layer reads, as numbers of the format."""

    def __init__(self, seed, dtype="f32", offset=0.0):
        self.rng, self.dtype, self.offset = np.random.default_rng(seed), STORAGE[dtype], offset

    def normal(self, *shape):
        return self.held(self.offset + self.rng.normal(0, 1, shape))

    def unit(self, *shape):
        return self.held(self.rng.uniform(0.02, 0.98, shape))

    def bits(self, *shape):
        return self.held(self.rng.integers(0, 2, shape))

    def mask(self, *shape):
        return self.held(np.maximum(self.rng.integers(0, 2, shape), np.arange(shape[-1]) == 1))

    def weights(self, *shape):
        return self.held(scipy.special.softmax(self.rng.normal(0, 1, shape), -1))

    def held(self, v):
        return np.asarray(v).astype(self.dtype).astype(float)


def norm_parameters(d, width):
    gamma, variance = 0.5 + d.unit(width), 0.5 + d.unit(width)
    return {"gamma": gamma, "beta": d.normal(width), "mean": d.normal(width), "variance": variance}


def recurrent_parameters(d, gates):
    kernel, recurrent = (d.held(d.rng.uniform(-0.7, 0.7, (rows, gates * 4))) for rows in (5, 4))
    return {"kernel": kernel, "recurrent": recurrent, "bias": d.unit(*((gates * 4,) if gates == 4 else (2, gates * 4)))}


def projections(d, width):
    kernels = {f"{one}-kernel": d.held(d.rng.uniform(-0.7, 0.7, (width, width))) for one in "qkvo"}
    return kernels | {f"{one}-bias": d.unit(width) for one in "qkvo"}


# name: kind, settings, inputs and parameters as drawn, training
CASES = {
    "dense": ("dense", {}, lambda d: [d.normal(8, 64)], lambda d: {"kernel": d.normal(64, 8), "bias": d.normal(8)}),
    "dense of rows": ("dense", {}, lambda d: [d.normal(3, 5, 7)], lambda d: {"kernel": d.normal(7, 4), "bias": d.normal(4)}),
    "dense with a large bias": (
        "dense", {}, lambda d: [d.normal(30, 5)], lambda d: {"kernel": d.normal(5, 9), "bias": 100 * d.normal(9)}),
    "conv2d": (
        "conv2d",
        {"size": (3, 3), "strides": (1, 1), "padding": "valid"},
        lambda d: [d.normal(2, 8, 7, 5)], lambda d: {"kernel": d.normal(3, 3, 5, 4), "bias": d.normal(4)}),
    "conv2d same": (
        "conv2d",
        {"size": (2, 4), "strides": (2, 1), "padding": "same"},
        lambda d: [d.normal(2, 7, 6, 5)], lambda d: {"kernel": d.normal(2, 4, 5, 4), "bias": d.normal(4)}),
    "conv2d dilated in groups": (
        "conv2d",
        {"size": (3, 2), "strides": (2, 1), "padding": "same", "dilations": (2, 3), "groups": 3},
        lambda d: [d.normal(2, 7, 6, 6)], lambda d: {"kernel": d.normal(3, 2, 2, 9), "bias": d.normal(9)}),
    "conv2d-transpose": (
        "conv2d-transpose",
        {"size": (3, 4), "strides": (2, 3), "padding": "same"},
        lambda d: [d.normal(2, 4, 5, 6)], lambda d: {"kernel": d.normal(3, 4, 5, 6), "bias": d.normal(5)}),
    "conv2d-transpose with gaps": (
        "conv2d-transpose",
        {"size": (1, 2), "strides": (2, 3), "padding": "valid"},
        lambda d: [d.normal(2, 4, 5, 6)], lambda d: {"kernel": d.normal(1, 2, 5, 6), "bias": d.normal(5)}),
    "average-pool": (
        "average-pool", {"size": (3, 2), "strides": (2, 2), "padding": "same"}, lambda d: [d.normal(2, 5, 5, 4)], lambda _: {}),
    "global-average-pool": ("global-average-pool", {}, lambda d: [d.normal(2, 5, 5, 4)], lambda _: {}),
    "bilinear-resize": ("bilinear-resize", {"size": (9, 7)}, lambda d: [d.normal(2, 6, 9, 4)], lambda _: {}),
    "batch-norm": ("batch-norm", {"epsilon": 1e-3}, lambda d: [d.normal(4, 3, 3, 6)], lambda d: norm_parameters(d, 6)),
    "batch-norm training": ("batch-norm", {"epsilon": 1e-3}, lambda d: [d.normal(4, 3, 3, 6)], lambda d: norm_parameters(d, 6)),
    "layer-norm": ("layer-norm", {"epsilon": 1e-5}, lambda d: [d.normal(4, 3, 24)], lambda d: norm_parameters(d, 24)),
    "group-norm": (
        "group-norm", {"groups": 3, "epsilon": 1e-3}, lambda d: [d.normal(2, 4, 3, 6)], lambda d: norm_parameters(d, 6)),
    "instance-norm": (
        "instance-norm", {"epsilon": 1e-3}, lambda d: [d.normal(2, 4, 3, 6)], lambda d: norm_parameters(d, 6)),
    "rms-norm": ("rms-norm", {"epsilon": 1e-5}, lambda d: [d.normal(4, 3, 24)], lambda d: {"gamma": 0.5 + d.unit(24)}),
    "l2-normalize": ("l2-normalize", {"epsilon": 1e-12}, lambda d: [d.normal(4, 3, 24)], lambda _: {}),
    "lstm": ("lstm", {}, lambda d: [d.normal(3, 4, 5)], lambda d: recurrent_parameters(d, 4)),
    "gru": ("gru", {}, lambda d: [d.normal(3, 4, 5)], lambda d: recurrent_parameters(d, 3)),
    "masked-softmax": ("masked-softmax", {}, lambda d: [d.normal(4, 20), d.mask(4, 20)], lambda _: {}),
    "masked attention": (
        "attention", {}, lambda d: [d.normal(2, 5, 8), d.normal(2, 6, 8), d.normal(2, 6, 3), d.mask(2, 6)], lambda _: {}),
    "dropout training": ("dropout", {"rate": 0.37}, lambda d: [d.normal(4, 30), d.bits(4, 30)], lambda _: {}),
    "softmax": ("activation", {"kernel": "softmax"}, lambda d: [d.normal(4, 3, 20)], lambda _: {}),
    "sigmoid": ("activation", {"kernel": "sigmoid"}, lambda d: [d.normal(4, 3, 20)], lambda _: {}),
    "relu": ("activation", {"kernel": "relu"}, lambda d: [d.normal(4, 20)], lambda _: {}),
    "add": ("add", {}, lambda d: [d.normal(4, 20), d.normal(4, 20)], lambda _: {}),
    "multiply": ("multiply", {}, lambda d: [d.normal(4, 20), d.normal(4, 1)], lambda _: {}),
    "affine": ("affine", {"scale": 0.3, "shift": 0.7}, lambda d: [d.normal(4, 20)], lambda _: {}),
    "attention": ("attention", {}, lambda d: [d.normal(2, 5, 8), d.normal(2, 6, 8), d.normal(2, 6, 3)], lambda _: {}),
    "multi-head-attention": ("multi-head-attention", {"heads": 2}, lambda d: [d.normal(2, 5, 8)], lambda d: projections(d, 8)),
    "cosine-similarity": ("cosine-similarity", {}, lambda d: [d.normal(2, 5, 8), d.normal(2, 3, 8)], lambda _: {}),
    "interpolate": ("interpolate", {}, lambda d: [d.unit(3, 1), d.weights(3, 9), d.weights(3, 9)], lambda _: {}),
    "circular-shift": ("circular-shift", {}, lambda d: [d.weights(3, 9), d.weights(3, 5)], lambda _: {}),
    "sharpen": ("sharpen", {}, lambda d: [d.weights(3, 9), 1 + 2 * d.unit(3, 1)], lambda _: {}),
    "read": ("read", {}, lambda d: [d.weights(3, 2, 9), d.normal(3, 9, 4)], lambda _: {}),
    "write": ("write", {}, lambda d: [d.normal(3, 9, 4), d.weights(3, 9), d.unit(3, 4), d.normal(3, 4)], lambda _: {}),
    "retention": ("retention", {}, lambda d: [d.unit(3, 4), d.weights(3, 4, 9)], lambda _: {}),
    "usage": ("usage", {}, lambda d: [d.unit(3, 9), d.weights(3, 9), d.unit(3, 9)], lambda _: {}),
    "allocation": ("allocation", {}, lambda d: [d.unit(3, 9)], lambda _: {}),
    "link": ("link", {}, lambda d: [d.unit(3, 6, 6), d.weights(3, 6), d.weights(3, 6)], lambda _: {}),
    "precedence": ("precedence", {}, lambda d: [d.weights(3, 9), d.weights(3, 9)], lambda _: {}),
    "directional": ("directional", {"transposed": 0}, lambda d: [d.unit(3, 9, 9), d.weights(3, 2, 9)], lambda _: {}),
    "directional transposed": ("directional", {"transposed": 1}, lambda d: [d.unit(3, 9, 9), d.weights(3, 2, 9)], lambda _: {}),
    "mix": ("mix", {}, lambda d: [d.weights(3, 2, 3), *(d.weights(3, 2, 9) for _ in range(3))], lambda _: {}),
    "mean-squared-error": ("mean-squared-error", {}, lambda d: [d.normal(4, 30), d.normal(4, 30)], lambda _: {}),
    "mean-absolute-error": ("mean-absolute-error", {}, lambda d: [d.normal(4, 30), d.normal(4, 30)], lambda _: {}),
    "binary-cross-entropy": ("binary-cross-entropy", {}, lambda d: [d.unit(4, 10), d.bits(4, 10)], lambda _: {}),
    "binary-cross-entropy-from-logits": (
        "binary-cross-entropy-from-logits", {}, lambda d: [4 * d.normal(4, 10), d.bits(4, 10)], lambda _: {}),
    "categorical-cross-entropy": ("categorical-cross-entropy", {}, lambda d: [d.unit(4, 10), d.weights(4, 10)], lambda _: {}),
    "categorical-cross-entropy-from-logits": (
        "categorical-cross-entropy-from-logits", {}, lambda d: [4 * d.normal(4, 10), d.weights(4, 10)], lambda _: {}),
}  # fmt: skip


def drawn(name, seed=0, dtype="f32", offset=0.0):
    kind, settings, inputs, parameters = CASES[name]
    d = Drawn(seed, dtype, offset)
    layer = Layer(name="layer", kind=kind, inputs=(), settings=settings)
    own = {key: d.held(one) for key, one in parameters(d).items()}
    return Reading(layer, [d.held(one) for one in inputs(d)], own, "training" in name)


def reads(kind, *inputs, **settings):
    return Reading(Layer(name="layer", kind=kind, inputs=(), settings=settings), inputs, {}, False)


def truth_of(read):
    return np.asarray(formula_of(read.layer).forward(read))


def ratio(got, read, dtype="f32"):
    """Return the worst error of an answer in units of its bound."""
    true = truth_of(read)
    bound = layer_bound(read, true, DTYPES[dtype])
    assert bound.shape == true.shape == np.shape(got)
    assert np.isfinite(bound).all()
    assert (bound >= 0).all()
    error = np.abs(np.asarray(got, float) - true)
    with np.errstate(all="ignore"):
        return np.max(np.where(error == 0, 0, error / bound))


class Steps:
    """An implementation in NumPy: every step rounded to the format, sums in a shuffled order in float32."""

    def __init__(self, read, dtype, seed, fault=""):
        self.read, self.s, self.training, self.fault = read, read.layer.settings, read.training, fault
        self.x = [one.astype(STORAGE[dtype]) for one in read.inputs]
        self.p = {name: one.astype(STORAGE[dtype]) for name, one in read.parameters.items()}
        self.rng, self.dtype = np.random.default_rng(seed + 1000), STORAGE[dtype]

    def sum(self, terms, axis=-1):
        axes = axis if isinstance(axis, tuple) else (axis,)
        kept = [n for n in range(terms.ndim) if n not in [a % terms.ndim for a in axes]]
        flat = terms.transpose(*kept, *axes).reshape(*(terms.shape[n] for n in kept), -1)
        flat = flat[..., self.rng.permutation(flat.shape[-1])].astype(np.float32)
        if self.fault == "f16 accumulation":
            return np.cumsum(flat, axis=-1, dtype=np.float16)[..., -1]
        return np.cumsum(flat, axis=-1)[..., -1].astype(self.dtype)

    def kept_sum(self, terms, axis=-1):
        return np.expand_dims(self.sum(terms, axis), axis)

    def mean(self, terms, axis):
        total = self.sum(terms, axis)
        return total / self.dtype(terms.size // total.size)

    def matmul(self, a, b):
        return self.sum(a[..., :, :, None] * b[..., None, :, :], -2)

    def dense(self, x, kernel, bias):
        if self.fault == "bias forgotten":
            return self.matmul(x, kernel)
        # torch begins its sums with the bias, others end with it
        return self.matmul(np.concatenate([x, np.ones_like(x[..., :1])], -1), np.concatenate([kernel, bias[None]]))

    def windows(self, x, dilations=(1, 1)):
        """Return the pixels of all windows, (b, rows, columns, height, width, channels)."""
        reach = [(k - 1) * step + 1 for k, step in zip(self.s["size"], dilations, strict=True)]
        pads = [(0, 0)] * 4
        if self.s["padding"] == "same":
            pads[1:3] = [same_pads(*axis) for axis in zip(x.shape[1:3], reach, self.s["strides"], strict=True)]
            if self.fault == "padding shifted":
                pads = [(after, before) for before, after in pads]
        seen = sliding_window_view(np.pad(x, pads), reach, axis=(1, 2))
        seen = seen[:, :: self.s["strides"][0], :: self.s["strides"][1], :, :: dilations[0], :: dilations[1]]
        return np.moveaxis(seen, 3, -1)

    def conv2d(self):
        (x,), (kernel, bias), groups = self.x, (self.p["kernel"], self.p["bias"]), self.s.get("groups", 1)
        seen = self.windows(x, self.s.get("dilations", (1, 1)))
        split = (np.split(array, groups, axis=-1) for array in (seen, kernel, bias))
        return np.concatenate(
            [
                self.dense(w.reshape(*w.shape[:3], -1), k.reshape(-1, k.shape[-1]), b)
                for w, k, b in zip(*split, strict=True)
            ],
            -1,
        )

    def conv2d_transpose(self):
        """A convolution with the turned kernel of the image whose pixels stand `strides` apart."""
        (x,), (kernel, bias), (down, right) = self.x, (self.p["kernel"], self.p["bias"]), self.s["strides"]
        rows, columns = kernel.shape[:2]
        longer, wider = (max(s - k, 0) for s, k in zip(self.s["strides"], self.s["size"], strict=True))
        spread = np.zeros((len(x), (x.shape[1] - 1) * down + 1, (x.shape[2] - 1) * right + 1, x.shape[3]), self.dtype)
        spread[:, ::down, ::right] = x
        pads = [(0, 0), (rows - 1, rows - 1 + longer), (columns - 1, columns - 1 + wider), (0, 0)]
        turned = kernel if self.fault == "not turned" else kernel[::-1, ::-1]
        seen = np.moveaxis(sliding_window_view(np.pad(spread, pads), (rows, columns), axis=(1, 2)), 3, -1)
        y = self.dense(seen.reshape(*seen.shape[:3], -1), turned.swapaxes(2, 3).reshape(-1, len(bias)), bias)
        if self.s["padding"] == "valid":
            return y
        return y[:, : x.shape[1] * down, : x.shape[2] * right]  # an odd pixel too many is at the end

    def average(self):
        seen, ones = self.windows(self.x[0]), self.windows(np.ones_like(self.x[0]))
        counts = (
            np.full(ones.shape[:3] + ones.shape[-1:], self.dtype(6))
            if self.fault == "whole window"
            else ones.sum((3, 4))
        )
        return self.sum(seen, (3, 4)) / counts

    def resized(self, x, axis, count):
        length, half = x.shape[axis], self.dtype(0.5)
        places = (np.arange(count).astype(self.dtype) + half) * self.dtype(length / count) - half
        if self.fault == "corners aligned":
            places = (np.arange(count) * ((length - 1) / (count - 1))).astype(self.dtype)
        places = places.clip(0, length - 1)
        low = np.floor(places).astype(int)
        weight = (places - low.astype(self.dtype)).reshape([-1 if n == axis else 1 for n in range(4)])
        a, b = x.take(low, axis), x.take(np.minimum(low + 1, length - 1), axis)
        return (1 - weight) * a + weight * b

    def norm(self, axes, folded, one_pass):
        (x,), epsilon = self.x, self.dtype(1e-3 if self.fault == "epsilon" else self.s["epsilon"])
        if axes:
            mean = np.expand_dims(self.mean(x, axes), axes)
            if one_pass:
                variance = np.maximum(np.expand_dims(self.mean(x * x, axes), axes) - mean * mean, 0)
            else:
                variance = np.expand_dims(self.mean((x - mean) * (x - mean), axes), axes)
        else:
            mean, variance = self.p["mean"], self.p["variance"]
        scale = self.p["gamma"] / np.sqrt(variance + epsilon)
        if folded:
            return x * scale + (self.p["beta"] - mean * scale)
        return (x - mean) * scale + self.p["beta"]

    def norm_of_groups(self, groups):
        (x,), epsilon = self.x, self.dtype(1e-5 if self.fault == "epsilon" else self.s["epsilon"])
        grouped = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
        mean = np.expand_dims(self.mean(grouped, (1, 3)), (1, 3))
        variance = np.expand_dims(self.mean((grouped - mean) * (grouped - mean), (1, 3)), (1, 3))
        return ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * self.p["gamma"] + self.p["beta"]

    def softmax(self, x):
        axis = -2 if self.fault == "wrong axis" else -1
        e = np.exp(x - x.max(axis, keepdims=True))
        return e / (self.kept_sum(e, axis))

    def attend(self, q, k, v, mask=None):
        if mask is not None:
            scores = self.matmul(q, k.swapaxes(-1, -2)) / self.dtype(math.sqrt(q.shape[-1]))
            return self.matmul(self.softmax(np.where(mask[:, None] > 0, scores, self.dtype(-np.inf))), v)
        return self.matmul(self.softmax(self.matmul(q, k.swapaxes(-1, -2)) / self.dtype(math.sqrt(q.shape[-1]))), v)

    def heads(self):
        (x,), p = self.x, self.p

        def split(v):
            return v.reshape(*v.shape[:2], self.s["heads"], -1).swapaxes(1, 2)

        y = self.attend(*(split(self.dense(x, p[f"{one}-kernel"], p[f"{one}-bias"])) for one in "qkv"))
        return self.dense(y.swapaxes(1, 2).reshape(x.shape), p["o-kernel"], p["o-bias"])

    def loss(self, kind):
        p, t = self.x
        everything = tuple(range(p.ndim))
        if kind in ("mean-squared-error", "mean-absolute-error"):
            return self.mean((p - t) * (p - t) if "squared" in kind else np.abs(p - t), everything)
        if kind == "binary-cross-entropy":
            q = np.clip(p, *map(self.dtype, CLIP))
            return -self.mean(t * np.log(q) + (1 - t) * np.log(1 - q), everything)
        if kind == "binary-cross-entropy-from-logits":
            return self.mean(np.maximum(p, 0) - p * t + np.log(1 + np.exp(-np.abs(p))), everything)
        if kind == "categorical-cross-entropy":
            q = np.clip(p / self.kept_sum(p), *map(self.dtype, CLIP))
            return -self.mean(self.sum(t * np.log(q)), (0,))
        a = p - p.max(-1, keepdims=True)
        return -self.mean(self.sum(t * (a - np.log(self.kept_sum(np.exp(a))))), (0,))

    def activation(self, x):
        if self.s["kernel"] == "softmax":
            return self.softmax(x)
        return np.maximum(x, 0) if self.s["kernel"] == "relu" else 1 / (1 + np.exp(-x))

    def unit(self, v):
        return v / np.sqrt(self.kept_sum(v * v))

    def value(self, kind, *, folded=False, one_pass=False):
        x, p = self.x, self.p
        axes = {"layer-norm": (-1,)}.get(kind, tuple(range(x[0].ndim - 1)) if self.training else ())
        formulas = {
            "dense": lambda: self.dense(x[0], p["kernel"], p["bias"]),
            "conv2d": self.conv2d,
            "conv2d-transpose": self.conv2d_transpose,
            "average-pool": self.average,
            "global-average-pool": lambda: self.mean(x[0], (1, 2)),
            "bilinear-resize": lambda: self.resized(self.resized(x[0], 1, self.s["size"][0]), 2, self.s["size"][1]),
            "batch-norm": lambda: self.norm(axes, folded, one_pass),
            "layer-norm": lambda: self.norm(axes, folded, one_pass),
            "group-norm": lambda: self.norm_of_groups(self.s["groups"]),
            "instance-norm": lambda: self.norm_of_groups(x[0].shape[-1]),
            "masked-softmax": lambda: self.softmax(
                np.where((x[1] > 0) | (self.fault == "mask forgotten"), x[0], self.dtype(-np.inf))
            ),
            "activation": lambda: self.activation(x[0]),
            "attention": lambda: self.attend(*x),
            "multi-head-attention": self.heads,
            "cosine-similarity": lambda: self.matmul(self.unit(x[1]), self.unit(x[0]).swapaxes(1, 2)),
            "read": lambda: self.matmul(*x),
            "directional": lambda: self.matmul(x[1], x[0] if self.s["transposed"] else x[0].swapaxes(1, 2)),
            **dict.fromkeys(LOSSES, lambda: self.loss(kind)),
        }
        # what is elementwise or sums a few terms: the formula of the truth itself, in the format
        rounded = self.read._replace(inputs=x, parameters=p)
        return formulas.get(kind, lambda: formula_of(self.read.layer).forward(rounded))()


def healthy(name, dtype, offset=0.0, **how):
    """Return the worst ratio over all seeds."""
    worst = 0.0
    for seed in SEEDS:
        read = drawn(name, seed, dtype, offset)
        with np.errstate(all="ignore"):
            got = Steps(read, dtype, seed).value(read.layer.kind, **how)
        assert got.dtype == STORAGE[dtype]
        worst = max(worst, ratio(got, read, dtype))
    return worst


@pytest.mark.parametrize("dtype", STORAGE)
@pytest.mark.parametrize("name", CASES)
def test_healthy_implementations_stay_within_and_use_a_fair_part(name, dtype):
    worst = healthy(name, dtype)
    assert worst <= 1
    if name != "relu":
        # five products in a chain, each at its worst; errors of all steps, each at its worst
        part = 1 / 300 if name in ("multi-head-attention", "lstm", "gru") else 1 / 60
        assert worst > part, "the bound is far wider than healthy implementations need"


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
@pytest.mark.parametrize("name", ["batch-norm", "batch-norm training", "layer-norm"])
def test_norms_may_be_folded_and_their_variance_may_cancel(name, offset, one_pass, folded):
    assert healthy(name, "f32", offset, folded=folded, one_pass=one_pass) <= 1


def recurrent_by_torch(kind, x, p, order):
    import torch

    def gates(tensor):
        return torch.cat([tensor.chunk(len(order), dim=-1)[gate] for gate in order], dim=-1)

    bias = p["bias"] if p["bias"].dim() == 2 else torch.stack([p["bias"], 0 * p["bias"]])
    weights = [gates(p["kernel"]).T, gates(p["recurrent"]).T, *map(gates, bias)]
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    layer = kind(x.shape[-1], len(p["recurrent"]), batch_first=True)
    return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))[0].detach()


def by_torch(read):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    x = [torch.tensor(one, dtype=torch.float32) for one in read.inputs]
    p = {name: torch.tensor(one, dtype=torch.float32) for name, one in read.parameters.items()}
    s, first, last = read.layer.settings, (0, 3, 1, 2), (0, 2, 3, 1)
    pads = (1, 2, 0, 1) if s.get("padding") == "same" else (0, 0, 0, 0)
    functions = {
        "dense": lambda: F.linear(x[0], p["kernel"].T, p["bias"]),
        "conv2d": lambda: F.conv2d(
            F.pad(x[0].permute(first), pads), p["kernel"].permute(3, 2, 0, 1), p["bias"], s["strides"]
        ).permute(last),
        "conv2d-transpose": lambda: F.conv_transpose2d(
            x[0].permute(first), p["kernel"].permute(3, 2, 0, 1), p["bias"], s["strides"], output_padding=(1, 1)
        ).permute(last),
        "average-pool": lambda: F.avg_pool2d(
            x[0].permute(first), s["size"], s["strides"], (1, 0), ceil_mode=True, count_include_pad=False
        ).permute(last),
        "global-average-pool": lambda: x[0].mean((1, 2)),
        "bilinear-resize": lambda: F.interpolate(x[0].permute(first), s["size"], mode="bilinear").permute(last),
        "batch-norm": lambda: F.batch_norm(
            x[0].permute(first), p["mean"], p["variance"], p["gamma"], p["beta"], read.training, eps=s["epsilon"]
        ).permute(last),
        "layer-norm": lambda: F.layer_norm(x[0], x[0].shape[-1:], p["gamma"], p["beta"], s["epsilon"]),
        "activation": lambda: {"relu": torch.relu, "sigmoid": torch.sigmoid, "softmax": lambda v: v.softmax(-1)}[
            s["kernel"]
        ](x[0]),
        "group-norm": lambda: F.group_norm(
            x[0].permute(first), s["groups"], p["gamma"], p["beta"], s["epsilon"]
        ).permute(last),
        "rms-norm": lambda: F.rms_norm(x[0], x[0].shape[-1:], p["gamma"], s["epsilon"]),
        "l2-normalize": lambda: F.normalize(x[0], dim=-1),
        "lstm": lambda: recurrent_by_torch(torch.nn.LSTM, x[0], p, (0, 1, 2, 3)),
        "gru": lambda: recurrent_by_torch(torch.nn.GRU, x[0], p, (1, 0, 2)),
        "masked-softmax": lambda: x[0].masked_fill(x[1] == 0, -torch.inf).softmax(-1),
        "attention": lambda: F.scaled_dot_product_attention(*x[:3], *(keys.bool()[:, None] for keys in x[3:])),
        "cosine-similarity": lambda: F.cosine_similarity(x[0][:, None], x[1][:, :, None], dim=-1),
        "mean-squared-error": lambda: F.mse_loss(*x),
        "mean-absolute-error": lambda: F.l1_loss(*x),
        "binary-cross-entropy": lambda: F.binary_cross_entropy(*x),
        "binary-cross-entropy-from-logits": lambda: F.binary_cross_entropy_with_logits(*x),
        "categorical-cross-entropy-from-logits": lambda: F.cross_entropy(*x),
    }
    return functions[read.layer.kind]().numpy()


TORCH = (
    *("dense", "dense of rows", "dense with a large bias", "conv2d", "conv2d same", "conv2d-transpose with gaps"),
    *("average-pool", "global-average-pool", "bilinear-resize", "batch-norm"),
    *("batch-norm training", "layer-norm", "group-norm", "rms-norm", "l2-normalize", "lstm", "gru", "masked-softmax"),
    *("softmax", "masked attention"),
    *("relu", "sigmoid", "attention", "cosine-similarity", "mean-squared-error", "mean-absolute-error"),
    *("binary-cross-entropy", "binary-cross-entropy-from-logits", "categorical-cross-entropy-from-logits"),
)


@pytest.mark.parametrize("name", TORCH)
def test_layers_of_torch_stay_within(name):
    assert max(ratio(by_torch(read), read) for read in (drawn(name, seed) for seed in SEEDS)) <= 1


def by_keras(read):
    keras = pytest.importorskip("keras")
    losses = keras.losses
    x = [np.asarray(one, np.float32) for one in read.inputs]
    p, s = {name: np.asarray(one, np.float32) for name, one in read.parameters.items()}, read.layer.settings
    layer = {
        "dense": lambda: keras.layers.Dense(p["bias"].size),
        "conv2d": lambda: keras.layers.Conv2D(p["bias"].size, s["size"], s["strides"], s["padding"]),
        "conv2d-transpose": lambda: keras.layers.Conv2DTranspose(p["bias"].size, s["size"], s["strides"], s["padding"]),
        "average-pool": lambda: keras.layers.AveragePooling2D(s["size"], s["strides"], s["padding"]),
        "bilinear-resize": lambda: keras.layers.Resizing(*s["size"]),
        "batch-norm": lambda: keras.layers.BatchNormalization(epsilon=s["epsilon"]),
        "layer-norm": lambda: keras.layers.LayerNormalization(epsilon=s["epsilon"]),
        "binary-cross-entropy": losses.BinaryCrossentropy,
        "binary-cross-entropy-from-logits": lambda: losses.BinaryCrossentropy(from_logits=True),
        "categorical-cross-entropy": losses.CategoricalCrossentropy,
        "categorical-cross-entropy-from-logits": lambda: losses.CategoricalCrossentropy(from_logits=True),
    }[read.layer.kind]()
    if isinstance(layer, losses.Loss):
        return np.asarray(layer(x[1], x[0]))
    layer.build(x[0].shape)
    order = [name for name in ("kernel", "bias", "gamma", "beta", "mean", "variance") if name in p]
    layer.set_weights([p[name] for name in order[: len(layer.weights)]])
    training = {"training": read.training} if read.layer.kind == "batch-norm" else {}
    return np.asarray(layer(x[0], **training))


KERAS = (
    *("dense", "conv2d", "conv2d same", "batch-norm", "batch-norm training", "layer-norm", "binary-cross-entropy"),
    *("conv2d-transpose", "conv2d-transpose with gaps", "average-pool", "bilinear-resize"),
    *("binary-cross-entropy-from-logits", "categorical-cross-entropy", "categorical-cross-entropy-from-logits"),
)


@pytest.mark.parametrize("name", KERAS)
def test_layers_of_keras_stay_within(name):
    assert max(ratio(by_keras(read), read) for read in (drawn(name, seed) for seed in SEEDS)) <= 1


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("layer-norm", "epsilon"),
        ("group-norm", "epsilon"),
        ("masked-softmax", "mask forgotten"),
        ("dense", "bias forgotten"),
        ("dense", "f16 accumulation"),
        ("softmax", "wrong axis"),
        ("attention", "wrong axis"),
        ("conv2d same", "padding shifted"),
        ("conv2d dilated in groups", "padding shifted"),
        ("conv2d-transpose", "not turned"),
        ("average-pool", "whole window"),
        ("bilinear-resize", "corners aligned"),
        ("multi-head-attention", "bias forgotten"),
    ],
)
def test_faults_break_the_bounds(name, fault):
    for seed, read in enumerate(drawn(name, seed) for seed in SEEDS):
        assert ratio(Steps(read, "f32", seed, fault).value(read.layer.kind), read) > 5, fault


def test_a_gelu_by_tanh_is_not_the_one_by_erf():
    read = reads("activation", x := Drawn(1).normal(4, 20), kernel="gelu-erf")
    by_erf = 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2)))
    by_tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    assert ratio(by_erf.astype(np.float32), read) <= 1
    assert ratio(by_tanh.astype(np.float32), read) > 100


@pytest.mark.parametrize("model", [one for one in networks() if "@published" not in one.name], ids=lambda m: m.name)
def test_every_layer_of_every_model_has_a_bound_that_is_small_beside_its_value(model):
    tensors = {**draw_inputs(model), **draw_parameters(model)}
    true = values(model, tensors)
    for layer in model.layers:
        bound = layer_bound(reading(model, layer, {**tensors, **true}), true[layer.name], DTYPES["f32"])
        assert bound.shape == true[layer.name].shape
        assert (bound >= 0).all()
        assert bound.max() < 1e-4 * np.abs(true[layer.name]).max(), layer.name


def test_every_kind_is_tried():
    tried = {kind for kind, *_ in CASES.values()} | {"max-pool", "up-sampling", "flatten", "reshape", "embedding"}
    assert tried == set(KINDS), f"CASES draws nothing for {sorted(set(KINDS) - tried)}"


@pytest.mark.parametrize("kind", ["max-pool", "up-sampling", "flatten", "reshape", "embedding", "dropout"])
def test_where_nothing_is_computed_no_error_is_allowed(kind):
    read, value = reads(kind, np.ones((1, 2, 2, 1))), np.array([[1.0, np.nan]])
    assert not layer_bound(read, value, DTYPES["f32"]).any()
    moved = layer_bound(read._replace(errors=[np.full((1, 2, 2, 1), 0.5)]), value, DTYPES["f32"])
    np.testing.assert_array_equal(moved, [[0.5, 0.0]])


def test_the_bound_is_0_where_the_truth_is_not_finite_and_finite_where_rounding_may_do_anything():
    x = np.array([[1.0, np.inf, np.nan, 3e38]])
    add = reads("add", x, x)
    np.testing.assert_array_equal(layer_bound(add, x + x, DTYPES["f32"]) > 0, [[True, False, False, True]])
    p = reads("binary-cross-entropy", np.ones((1, 1)), np.zeros((1, 1)))
    # in f16 the upper end of the clip is 1, whose logarithm of 1 - p is anything
    assert layer_bound(p, truth_of(p), DTYPES["f16"]) == DTYPES["f16"].largest
    assert layer_bound(p, truth_of(p), DTYPES["f32"]) < 1e-4


def test_a_probability_near_1_may_be_off_by_its_rounding():
    p = np.float64(np.float32(1 - 2.0**-20))
    read = reads("binary-cross-entropy", np.full((1, 1), p), np.zeros((1, 1)))
    bound = layer_bound(read, truth_of(read), DTYPES["f32"])
    assert 2.0**-24 / (1 - p) < bound < 1.2 * 2.0**-24 / (1 - p)


def test_subnormal_numbers_may_be_flushed():
    tiny = np.array([[2.0**-130]])
    for kind, settings, inputs in (
        ("activation", {"kernel": "relu"}, [tiny]),
        ("activation", {"kernel": "silu"}, [tiny]),
        ("add", {}, [tiny, tiny]),
        ("multiply", {}, [np.array([[2.0**-70]])] * 2),
    ):
        read = reads(kind, *inputs, **settings)
        true = truth_of(read)
        assert layer_bound(read, true, DTYPES["f32"]) >= true, kind


def test_what_has_no_bound_is_refused():
    with pytest.raises(LookupError, match=r"kind new have no error bound: .*BOUNDS"):
        layer_bound(reads("new", np.ones(1)), np.ones(1), DTYPES["f32"])
    with pytest.raises(Unsupported, match="layer layer: no built-in kernel is called 'new'"):
        layer_bound(reads("activation", np.ones(1), kernel="new"), np.ones(1), DTYPES["f32"])
