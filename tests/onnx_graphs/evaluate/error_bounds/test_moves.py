"""Error bounds of operators that move elements: exact, and errors move along."""

from __future__ import annotations

import numpy as np
import pytest

X = np.arange(48, dtype=np.float32).reshape(1, 4, 3, 4)
MOVES = [
    ("Pad", [X, np.array([0, 0, 1, -1, 0, 0, 2, 1]), np.array(7, np.float32)], {}),
    ("Pad", [X, np.array([0, 0, 1, 1, 0, 0, 2, 1])], {"mode": "reflect"}),
    ("Pad", [X, np.array([0, 0, 1, 1, 0, 0, 2, 1])], {"mode": "edge"}),
    ("Tile", [X, np.array([1, 2, 1, 3])], {}),
    ("SpaceToDepth", [X[..., :2, :]], {"blocksize": 2}),
    ("DepthToSpace", [X], {"blocksize": 2, "mode": "CRD"}),
    ("CenterCropPad", [X, np.array([5, 2])], {"axes": [2, 3]}),
]


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), MOVES, ids=str)
def test_moves_are_exact_and_carry_errors(node, share, passes_on, op_type, inputs, attributes):
    move = node(op_type, **attributes)
    (result,), (bound,) = move.runtime(inputs), move.bounds(inputs)
    assert bound.error is None
    assert share(result, bound) == 0
    (bound,) = passes_on(move, inputs)
    np.testing.assert_allclose(bound.error, 1e-3 * np.abs(bound.value))


def test_older_padding_is_exact(node):
    pad = node("Pad", opset=2, pads=[0, 0, 0, 1, 0, 0, 0, 0], value=-5.0)
    (bound,) = pad.bounds([X], [np.full(X.shape, 0.5)])
    assert (bound.value[..., 0] == -5).all()
    assert (bound.error[..., 0] == 0).all()
    assert (bound.error[..., 1:] == 0.5).all()
