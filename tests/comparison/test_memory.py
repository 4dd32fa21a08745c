"""The evidence of findings in the regime "memory": in which layouts their elements lay."""

from __future__ import annotations

import numpy as np

from actconform.comparison.comparator import comparison
from actconform.comparison.memory import with_layouts_named
from actconform.testdata.kernel_vectors import TestVector, TestVectors
from actconform.testdata.memory_vectors import REGIME
from actconform.tolerance.limits import Tolerance
from actconform.types.dtypes import DTYPES

TRUTH = np.arange(1.0, 9.0)
RIGHT = TRUTH.astype(np.float32)
LAYOUTS = ("", "offset", "strided", "strided", "reversed")


def vector(layout: str) -> TestVector:
    return TestVector(
        regime=REGIME if layout else "ordinary",
        inputs={"x": RIGHT},
        cotangents=None,
        truth={"y": TRUTH},
        input_at={"y": TRUTH},
        dtypes={"y": RIGHT.dtype},
        layout=layout,
    )


VECTORS = TestVectors(Tolerance(fmt=DTYPES["f32"], limit=8.0, exact=False), [vector(layout) for layout in LAYOUTS])


def evidence(*outputs: np.ndarray) -> list[tuple[str, str]]:
    compared = comparison(VECTORS, [{"y": y} for y in outputs])
    return [(str(finding.class_), finding.evidence) for finding in with_layouts_named(VECTORS, compared)]


def test_the_layouts_that_show_a_finding_are_named():
    assert evidence(*[RIGHT] * 5) == []
    assert evidence(RIGHT, RIGHT, RIGHT, RIGHT * 2, RIGHT * 2) == [
        ("scaled-error", "where arrays lie strided, reversed")
    ]
    assert evidence(RIGHT, RIGHT, RIGHT, RIGHT, RIGHT * 2) == [("scaled-error", "where arrays lie reversed")]
    assert evidence(RIGHT, RIGHT * 2, RIGHT, RIGHT, RIGHT) == [("scaled-error", "where arrays lie offset")]


def test_elements_of_other_regimes_have_none():
    assert evidence(RIGHT * 2, RIGHT, RIGHT, RIGHT, RIGHT) == [("scaled-error", "")]


def test_where_an_output_has_another_shape_no_element_is_told_from_another():
    assert ("scaled-error", "") in evidence(RIGHT, RIGHT[:4], RIGHT, RIGHT * 2, RIGHT)
