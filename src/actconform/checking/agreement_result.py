"""How far two columns agree over a data set: what `check.json` holds of it."""

from __future__ import annotations

from typing import Literal

import msgspec

Numbers = tuple[int, ...]


class OutputAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """One output over all samples in which both columns gave it in one shape.

    A row is the last axis of an output of floats with two axes or more, where it has 2 to 100,000 elements: a ranking. Rows in which the
    expected values hold NaN are left out. A figure is None where nothing counts for it.
    """

    name: str
    samples: int = 0
    elements: int = 0
    unequal: int = 0
    """Elements that are not the same number; two NaN are, and 0 and -0."""
    nonfinite: int = 0
    """Elements that are NaN or infinite in one column and not the same in the other."""
    reshaped: int = 0
    """Samples in which the shapes differ: nothing else is counted in them."""
    absent: int = 0
    """Samples in which only one column gave it."""
    rows: int = 0
    top_1: float | None = None
    """The share of rows in which no element has a larger expected value than the one that the other column puts first."""
    top_5: float | None = None
    """The mean share of the first five of the other column that are among the five largest expected values; of rows of more than five."""
    ranked: int = 0
    """Rows of which the whole order is compared: up to 2**20 elements of a sample, in rows evenly spread."""
    rank_correlation: float | None = None
    """The mean of Spearman's correlation over these: 1 is the same order. Rows of equal values have no order: 1 where both are, else 0."""
    least_rank_correlation: float | None = None
    cosine: float | None = None
    """The mean cosine of the angle between both, item by item along the first axis (an output of one axis is one item), of finite elements."""
    least_cosine: float | None = None
    largest_error: float = 0.0
    """Absolute, of elements finite in both; `largest_error_at` and `largest_error_sample` are where."""
    largest_error_at: Numbers = ()
    largest_error_sample: int = -1
    mean_error: float = 0.0
    """The mean absolute error of the elements finite in both."""
    magnitude: float = 0.0
    """The largest expected magnitude of the elements finite in both."""
    mean_magnitude: float = 0.0

    @property
    def relative_error(self) -> float:
        """The largest error over the largest magnitude; the error itself where that is 0."""
        return self.largest_error / self.magnitude if self.magnitude else self.largest_error

    @property
    def mean_relative_error(self) -> float:
        """The mean error over the mean magnitude; the error itself where that is 0."""
        return self.mean_error / self.mean_magnitude if self.mean_magnitude else self.mean_error


class MetricAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """The user's metric over the samples that both columns answered."""

    name: str
    """ "module:function"."""
    compares: bool = False
    """Whether it compares both columns itself: then `actual` is its mean, and there is no expected one."""
    samples: int = 0
    """For which it gave numbers."""
    undefined: int = 0
    """Samples for which it gave NaN: they count in no mean."""
    expected: float | None = None
    """Its mean on the expected outputs."""
    actual: float | None = None
    differing: int = 0
    """Samples in which it gives the two columns different numbers."""
    largest_difference: float = 0.0
    largest_difference_sample: int = -1


class WorstSample(msgspec.Struct, frozen=True, kw_only=True):
    """One of the samples that agree least."""

    index: int
    """In the data set, from 0."""
    error: float
    """The largest over the outputs: the largest error over the largest expected magnitude, for integers the share of elements that differ;
    infinite where a shape or what is finite differs."""
    output: str
    """The output that is furthest off."""
    folder: str = ""
    """Where its inputs and the expected outputs were written; "" where they were not."""


class SampleFailure(msgspec.Struct, frozen=True):
    """A sample for which a column gave no answer."""

    index: int
    column: str
    kind: str
    message: str


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How far one column agrees with the expected one over a data set."""

    expected: str
    """The name of the column that is taken as right."""
    actual: str
    data: str
    """The data set, as the user names it."""
    samples: int = 0
    """That both answered."""
    failed: int = 0
    """Samples that one of them did not answer."""
    failures: list[SampleFailure] = []
    """The first of them."""
    status: Literal["compared", "nothing compared", "given up"] = "compared"
    """`given up`: a column answered none of the first samples, and was asked no further."""
    outputs: list[OutputAgreement] = []
    metric: MetricAgreement | None = None
    worst: list[WorstSample] = []
    """The worst first; samples that agree to the last bit are none."""
    notes: tuple[str, ...] = ()
