"""Movement between two folders of goldens, in ULP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.testdata.golden.store import read_golden_tensor, read_manifest
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


def diff(old: Path, new: Path) -> list[str]:
    """Return one line for each tensor, table or layout of groups that is not the same in both folders; empty when all are.

    Movement is counted in ULP of the stored format around the old number; NaN equals NaN, -0 is not +0. Raises GoldenError
    where either folder is damaged.
    """
    before, after = read_manifest(old), read_manifest(new)
    lines = [f"{name}: gone" for name in sorted(before.files.keys() - after.files.keys())]
    lines += [f"{name}: new" for name in sorted(after.files.keys() - before.files.keys())]
    for name in sorted(before.files.keys() & after.files.keys()):
        a, b = read_golden_tensor(old, name, before.files[name]), read_golden_tensor(new, name, after.files[name])
        lines += [f"{name}: {change}" for change in _moved(a, b)]
    for subject in sorted(before.subjects.keys() & after.subjects.keys()):
        if before.subjects[subject].draws != after.subjects[subject].draws:
            lines.append(f"{subject}: its draws are laid out otherwise")
        if before.subjects[subject].tables != after.subjects[subject].tables:
            lines.append(f"{subject}: its 16-bit tables differ")
    return lines


def _moved(a: NDArray[Any], b: NDArray[Any]) -> Iterator[str]:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        yield f"{a.dtype.str} {list(a.shape)} became {b.dtype.str} {list(b.shape)}"
        return
    if a.dtype.kind != "f":
        if not np.array_equal(a, b):
            yield f"{int(np.sum(a != b))} of {number_of(a.size, 'number')} differ"
        return
    with np.errstate(all="ignore"):
        moved = ~((a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b))
        if moved.any():
            ulp = np.abs(a.astype(np.float64) - b.astype(np.float64))[moved] / np.abs(np.spacing(a[moved]))
            # NaN and inf have no spacing to count in; a zero that changed its sign alone moved by nothing
            worst = f"at most {ulp.max():.3g} ULP" if np.isfinite(ulp).all() else "class changed"
            worst = worst if ulp.any() else "only the sign of zero"
            yield f"{int(moved.sum())} of {number_of(a.size, 'number')} moved, {worst}"
