"""The figure shows each element at its place; pandas and matplotlib are imported when they are asked for, and missed in words."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from actconform.accuracy.function.figure import binades
from actconform.accuracy.function.measure import measure
from actconform.types.dtypes import DTYPES


def broken(x):
    return np.where(np.isnan(x) | (x == 4), 0, np.where(x == 2, np.nan, np.tanh(x.astype(np.float64)))).astype(x.dtype)


class Axes:
    """A stand-in that keeps what is drawn."""

    def __init__(self):
        self.lines, self.ticks = [], []

    def plot(self, x, y, marker, **_):
        self.lines.append((x, y, marker))
        return [self]

    def get_color(self):
        return "blue"

    def set_xticks(self, ticks, labels):
        self.ticks = list(zip(ticks, labels, strict=True))

    def __getattr__(self, name):
        return lambda *_, **__: None


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_every_finite_input_is_drawn_at_its_binade(dtype):
    axes = Axes()
    measured = measure(broken, "tanh", dtype)
    assert measured.plot(axes) is axes
    (x, y, _), (crosses, top, marker) = axes.lines
    columns = measured.columns()
    assert x.size + crosses.size == np.count_nonzero(np.isfinite(columns["input"]))
    assert marker == "x"
    np.testing.assert_array_equal(crosses, binades(np.full(crosses.size, 2.0), DTYPES[dtype]))
    assert (top > y.max()).all()
    ticks = [tick for tick, _ in axes.ticks]
    assert ticks == sorted(ticks)
    assert axes.ticks[-1][1] == f"$2^{{{DTYPES[dtype].emax}}}$"


def test_binades_grow_with_the_input_on_both_sides_of_zero():
    fmt = DTYPES["bf16"]
    x = np.sort(np.concatenate([[0.0], 2.0 ** np.arange(-133, 128), -(2.0 ** np.arange(-133, 128))]))
    places = binades(x, fmt)
    np.testing.assert_allclose(np.diff(places), 1.0)
    assert places[x == 0] == 0


def test_a_frame_is_made_of_the_columns(monkeypatch):
    pandas = ModuleType("pandas")
    pandas.DataFrame = dict
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    measured = measure(broken, "tanh", "f16")
    frame = measured.to_frame()
    assert frame.keys() == measured.columns().keys()


def test_what_is_not_installed_is_named_with_the_way_without(monkeypatch):
    measured = measure(broken, "tanh", "f16")
    for module in ("pandas", "matplotlib"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install pandas; columns\(\)"):
        measured.to_frame()
    with pytest.raises(ImportError, match="pip install matplotlib"):
        measured.plot()


def test_real_pandas_and_matplotlib_take_it():
    pandas, matplotlib = pytest.importorskip("pandas"), pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    measured = measure(broken, "tanh", "bf16")
    assert isinstance(measured.to_frame(), pandas.DataFrame)
    axes = measured.plot()
    axes.figure.canvas.draw()
    assert axes.get_title() == "broken as tanh in bf16"
