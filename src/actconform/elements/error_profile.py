"""The error over the input domain: the worst of each group of binades, found in the pass that measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.types import Profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.tolerance.limits import Tolerance

    F64 = NDArray[np.float64]

LOG2_WIDTH = {"f32": 2, "bf16": 2, "f16": 0}  # 4 binades of a wide format are one point, about 140 in all
DIGITS = 3
_NEVER = -1.0


class WorstByBinade:
    """The worst error by group of binades among the elements that were added, in units.

    Where the tail tier applies and the error in ULP is the larger share of its limit, that share counts, of `tolerance.limit`.
    """

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.shift = 52 + LOG2_WIDTH[tolerance.fmt.name]
        # indexed by sign and exponent of a float64: groups of negative numbers fill the second half
        self.table = np.full(1 << (64 - self.shift), _NEVER)
        self._of_tail = tolerance.limit / tolerance.tail_limit
        # kept from block to block: fresh memory of this size costs more than what is done with it
        self._group, self._worst_so_far, self._most = np.empty(0, np.uint64), np.empty(0), np.empty(0)

    def add(self, x: F64, truth: F64, scales: F64, scaled: F64, ulp: F64) -> None:
        """Count elements within their limits, with s(x) and their errors; only what could be the worst so far costs much."""
        if x.size > self._group.size:
            self._group, self._worst_so_far, self._most = (
                np.empty(x.size, np.uint64),
                np.empty(x.size),
                np.empty(x.size),
            )
        group = np.right_shift(x.view(np.uint64), self.shift, out=self._group[: x.size]).view(np.int64)
        worst_so_far = self.table.take(group, mode="clip", out=self._worst_so_far[: x.size])
        if not self.tolerance.tail:
            worse = np.flatnonzero(scaled > worst_so_far)
            np.maximum.at(self.table, group[worse], scaled[worse])
            return
        most = self._most[: x.size]
        of_tail = ulp if self._of_tail == 1.0 else np.multiply(ulp, self._of_tail, out=most)
        worse = np.flatnonzero(np.maximum(scaled, of_tail, out=most) > worst_so_far)
        if not worse.size:
            return
        group, worst_so_far, scaled, ulp = group[worse], worst_so_far[worse], scaled[worse], ulp[worse]
        # |f| < s/8 makes a ULP less than a quarter of the unit, which is soon told
        tail = np.flatnonzero(ulp > 4 * scaled)
        in_tail = worse[tail]
        small = np.abs(truth[in_tail]) < np.broadcast_to(scales, x.shape)[in_tail] / 8
        applies = small & ~self.tolerance.near_root(x[in_tail])
        scaled[tail] = np.where(applies, np.maximum(scaled[tail], ulp[tail] * self._of_tail), scaled[tail])
        worse = np.flatnonzero(scaled > worst_so_far)
        np.maximum.at(self.table, group[worse], scaled[worse])

    def add_breaches(self, x: F64, magnitude: F64, *, of_tail: bool) -> None:
        """Count elements beyond a limit, with their errors in units, or in ULP where it is the tail's."""
        units = magnitude * self._of_tail if of_tail else magnitude
        np.maximum.at(self.table, x.view(np.uint64) >> self.shift, units)

    def profile(self) -> Profile:
        """Return what was seen, by ascending input; zeros of both signs are one group, NaN is in none."""
        fmt = self.tolerance.fmt
        bits = self.shift - 52
        first, last = ((exponent + 1023) >> bits for exponent in (fmt.emin - fmt.precision + 1, fmt.emax))
        infinity, half = 0x7FF >> bits, self.table.size // 2
        positive = [*range(first, last + 1), infinity]
        groups = [*(half + group for group in reversed(positive)), 0, *positive]
        worst = self.table[groups]
        worst[len(positive)] = max(self.table[0], self.table[half])
        filled = np.flatnonzero(worst != _NEVER)
        shares = worst[filled] / (self.tolerance.limit or 1.0)
        return Profile(
            first=(first << bits) - 1023,
            width=1 << bits,
            at=tuple((filled - len(positive)).tolist()),
            share=tuple(float(f"{share:.{DIGITS}g}") for share in shares),
        )
