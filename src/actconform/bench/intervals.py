"""Medians with an interval that holds whatever the distribution: order statistics, and nothing assumed of the noise."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_ROUNDS = 6  # of 5 samples not even the least and the largest hold the median between them with 95 %
CONFIDENCE = 0.95


class ConfidenceInterval(msgspec.Struct, frozen=True, array_like=True):
    """A median and the bounds that hold the true one with at least 95 %, if samples are independent; all positive."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """How many times the lower bound the upper one is."""
        return self.high / self.low


def bounding_rank(n: int, confidence: float = CONFIDENCE) -> int:
    """Return the largest k such that the k-th least and k-th largest of n samples hold the median between them.

    They do with probability 1 - 2 P(B < k), B binomial of n and 1/2 (David and Nagaraja, Order Statistics, 7.1), in exact
    integers. Raises ValueError where no k does, with fewer than 6 samples at 95 %.
    """
    outside, k = 0, 0
    while 2 * (outside + math.comb(n, k)) <= (1.0 - confidence) * 2**n:
        outside += math.comb(n, k)
        k += 1
    if k == 0:
        raise ValueError(f"no interval of {n} samples holds the median with {100 * confidence:g} %: take more")
    return k


def interval(samples: Sequence[float]) -> ConfidenceInterval:
    """Return the median of at least 6 positive samples and its interval; raise ValueError with fewer."""
    ordered = sorted(samples)
    k = bounding_rank(len(ordered))
    return ConfidenceInterval(statistics.median(ordered), ordered[k - 1], ordered[-k])


def ratios(samples: Sequence[float], to: Sequence[float]) -> ConfidenceInterval:
    """Return the interval of the ratios within each round: what slows both in a round does not show."""
    return interval([sample / reference_sample for sample, reference_sample in zip(samples, to, strict=True)])
