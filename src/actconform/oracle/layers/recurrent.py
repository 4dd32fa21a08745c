"""Sequences: embeddings of ids, LSTM and GRU, with their vector-Jacobian products through all steps.

NaN in a step stays in that sequence and in all later steps. Complex numbers pass through, but for ids, which are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.oracle.layers.registry import LayerGradients, layer_formula

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.oracle.layers.registry import F64, Reading


def _ids(reading: Reading) -> NDArray[np.int64]:
    """Return the ids, which come as floating-point numbers, as all tensors of a model do."""
    return np.rint(reading.inputs[0].real).astype(np.int64)


def _embedding_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """A row of the table gets the sum of the cotangents of all places that took it."""
    d_table = np.zeros(reading.parameters["table"].shape, g.dtype)
    np.add.at(d_table, _ids(reading), g)
    return LayerGradients([None], {"table": d_table})


@layer_formula("embedding", vjp=_embedding_vjp)
def _embedding(reading: Reading) -> F64:
    """An id beyond the table is an IndexError: no convention is defined."""
    rows: F64 = reading.parameters["table"][_ids(reading)]
    return rows


def _sigmoid(z: F64) -> F64:
    y: F64 = 1.0 / (1.0 + np.exp(-z))
    return y


def _gates(z: F64, count: int) -> list[F64]:
    return np.split(z, count, axis=-1)


class _LstmStep(NamedTuple):
    """What one step read, h and c, its gates after their activations, and the cell's state that it left."""

    h: F64
    c: F64
    i: F64
    f: F64
    g: F64
    o: F64
    after: F64


def _lstm_steps(reading: Reading) -> list[_LstmStep]:
    x, parameters = reading.inputs[0], reading.parameters
    from_x = x @ parameters["kernel"] + parameters["bias"]
    h = c = np.zeros((len(x), len(parameters["recurrent"])), from_x.dtype)
    steps = []
    for time in range(x.shape[1]):
        i, f, g, o = _gates(from_x[:, time] + h @ parameters["recurrent"], 4)
        step = _LstmStep(h, c, _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o), c)
        step = step._replace(after=step.f * c + step.i * step.g)
        steps.append(step)
        h, c = step.o * np.tanh(step.after), step.after
    return steps


def _lstm_vjp(reading: Reading, _: F64, cotangent: F64) -> LayerGradients:
    """Back through time: h and c of each step get what the step's own output has, and what the later steps read."""
    x, parameters = reading.inputs[0], reading.parameters
    steps = _lstm_steps(reading)
    d_z = np.zeros((*x.shape[:2], parameters["kernel"].shape[1]), cotangent.dtype)
    d_h = d_c = np.zeros_like(steps[0].h)
    for time in reversed(range(x.shape[1])):
        step = steps[time]
        d_h = d_h + cotangent[:, time]
        squashed = np.tanh(step.after)
        d_after = d_c + d_h * step.o * (1.0 - squashed * squashed)
        parts = (
            d_after * step.g * step.i * (1.0 - step.i),
            d_after * step.c * step.f * (1.0 - step.f),
            d_after * step.i * (1.0 - step.g * step.g),
            d_h * squashed * step.o * (1.0 - step.o),
        )
        d_z[:, time] = np.concatenate(parts, axis=-1)
        d_c = d_after * step.f
        d_h = d_z[:, time] @ parameters["recurrent"].T
    states = np.stack([step.h for step in steps], axis=1)
    return LayerGradients(
        [d_z @ parameters["kernel"].T],
        {"kernel": _outer(x, d_z), "recurrent": _outer(states, d_z), "bias": d_z.sum(axis=(0, 1))},
    )


@layer_formula("lstm", vjp=_lstm_vjp)
def _lstm(reading: Reading) -> F64:
    return np.stack([step.o * np.tanh(step.after) for step in _lstm_steps(reading)], axis=1)


def _outer(a: F64, b: F64) -> F64:
    """Return the sum of a^T b over examples and steps."""
    return np.tensordot(a, b, axes=((0, 1), (0, 1)))


class _GruStep(NamedTuple):
    """The state that one step read, its gates after their activations, and what it makes of the state before it is reset."""

    h: F64
    z: F64
    r: F64
    n: F64
    inner: F64


def _gru_steps(reading: Reading) -> list[_GruStep]:
    x, parameters = reading.inputs[0], reading.parameters
    from_x = x @ parameters["kernel"] + parameters["bias"][0]
    h = np.zeros((len(x), len(parameters["recurrent"])), from_x.dtype)
    steps = []
    for time in range(x.shape[1]):
        z, r, n = _gates(from_x[:, time], 3)
        u_z, u_r, inner = _gates(h @ parameters["recurrent"] + parameters["bias"][1], 3)
        r = _sigmoid(r + u_r)
        steps.append(_GruStep(h, _sigmoid(z + u_z), r, np.tanh(n + r * inner), inner))
        h = _gru_state(steps[-1])
    return steps


def _gru_state(step: _GruStep) -> F64:
    return step.z * step.h + (1.0 - step.z) * step.n


def _gru_vjp(reading: Reading, _: F64, cotangent: F64) -> LayerGradients:
    """Back through time. What the state gives to n passes through r, so that its cotangent differs from that of x's part."""
    x, parameters = reading.inputs[0], reading.parameters
    steps = _gru_steps(reading)
    d_x = np.zeros((*x.shape[:2], parameters["kernel"].shape[1]), cotangent.dtype)
    d_u = d_x.copy()
    d_h = np.zeros_like(steps[0].h)
    for time in reversed(range(x.shape[1])):
        step = steps[time]
        d_h = d_h + cotangent[:, time]
        d_z = d_h * (step.h - step.n) * step.z * (1.0 - step.z)
        d_n = d_h * (1.0 - step.z) * (1.0 - step.n * step.n)
        d_r = d_n * step.inner * step.r * (1.0 - step.r)
        d_x[:, time] = np.concatenate([d_z, d_r, d_n], axis=-1)
        d_u[:, time] = np.concatenate([d_z, d_r, d_n * step.r], axis=-1)
        d_h = d_h * step.z + d_u[:, time] @ parameters["recurrent"].T
    states = np.stack([step.h for step in steps], axis=1)
    return LayerGradients(
        [d_x @ parameters["kernel"].T],
        {
            "kernel": _outer(x, d_x),
            "recurrent": _outer(states, d_u),
            "bias": np.stack([d_x.sum(axis=(0, 1)), d_u.sum(axis=(0, 1))]),
        },
    )


@layer_formula("gru", vjp=_gru_vjp)
def _gru(reading: Reading) -> F64:
    return np.stack([_gru_state(step) for step in _gru_steps(reading)], axis=1)
