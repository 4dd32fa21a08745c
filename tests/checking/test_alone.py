"""Nodes of runtimes that do not say what survives their optimization: over the bound only what is wrong by itself, too."""

from __future__ import annotations

import numpy as np
from small_models import checked, made

MODEL = made("(float[n] x) => (float[n] y) { h = Mul (x, w)  r = Relu (h)  y = Add (r, x) }", {"w": np.float32(-2)})
X = {"x": np.float32([1.0, 2.5, 0.0, -3.0])}


def test_a_mark_that_shows_what_no_node_read_accuses_nobody(runtime):
    (shows,) = checked(MODEL, X, runtime("shows")).runtimes
    (level,) = shows.levels
    assert [tensor.tensor for tensor in level.tensors if not tensor.explained] == ["h", "r"]
    assert (shows.status, shows.fault) == ("explained", None)


def test_a_node_that_is_wrong_by_itself_is_named(runtime):
    (doubles,) = checked(MODEL, X, runtime("doubles")).runtimes
    assert (doubles.fault.node, doubles.fault.blame) == ("Mul:h", "runtime")
    assert any(
        words.startswith("by itself, on what it read, the node is over its bound too")
        for words in doubles.fault.evidence
    )
