"""The verdict end to end at infinities and NaN, which draws of rounding leave as they are, or do not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from actconform.checking.result import OutputCheck
from actconform.checking.spread import ill_conditioned, output_verdict
from actconform.types.dtypes import DTYPES

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("got", "truth", "draw", "explained"),
    [
        (INF, INF, INF, True),
        (NAN, INF, INF, False),
        (1.0, INF, INF, False),
        (-INF, INF, INF, False),
        (NAN, NAN, NAN, True),
        (1.0, NAN, NAN, False),
        (NAN, 1.0, 1.0, False),
        (1.0, INF, 2.0, True),
        (NAN, 1.0, NAN, True),
    ],
)
def test_what_no_draw_moves_must_be_just_that(got: float, truth: float, draw: float, explained: bool):
    check = OutputCheck(name="y", sample=0, shape=(2,))
    draws = [{"y": np.asarray([1.0, each])} for each in (truth, draw)]
    verdict = output_verdict(
        check, np.asarray([1, got], np.float32), np.asarray([1.0, truth]), draws, TensorProto.FLOAT
    )
    assert verdict.explained is explained


def test_an_infinity_in_the_truth_makes_no_graph_ill_conditioned():
    truth = np.asarray([INF, NAN, 1.0])
    assert ill_conditioned(truth, [truth, truth], DTYPES["f32"]) == {
        "spread": 0.0,
        "magnitude": 1.0,
        "ill_conditioned": False,
    }
