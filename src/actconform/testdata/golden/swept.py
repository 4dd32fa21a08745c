"""The `swept` points of a unary kernel: inputs that a sweep brought to light, added to a golden on demand and kept by later mints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.errors import GoldenError
from actconform.oracle.arb.correctly_rounded import exact
from actconform.testdata.golden.store import load
from actconform.testdata.regimes import TensorGroup
from actconform.types import Kernel

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.testdata.golden.store import Golden, Manifest, Provable

SWEPT = "swept"


def swept_points(folder: Path, manifest: Manifest, subject: Provable) -> NDArray[np.float32]:
    """Return the swept points of a stored golden, none where it has none, is damaged, or is no unary kernel's."""
    if not isinstance(subject, Kernel) or subject.form != "unary" or subject.name not in manifest.subjects:
        return np.empty(0, np.float32)
    try:
        golden = load(folder, manifest, subject.name)
    except GoldenError:
        return np.empty(0, np.float32)
    return np.concatenate(
        [np.empty(0, np.float32), *(tensors["x"] for regime, tensors in golden.split() if regime == SWEPT)]
    )


def with_points(kernel: Kernel, golden: Golden, x: NDArray[np.float32]) -> Golden:
    """Return a unary kernel's golden with further swept points, those that are not in it yet, and their truth by Arb.

    Raises ImportError without python-flint.
    """
    present = golden.tensors["x"].view(np.uint32)
    patterns = np.unique(x.view(np.uint32))
    fresh = patterns[~np.isin(patterns, present)].view(np.float32)
    if not fresh.size:
        return golden
    added = {"x": fresh, "y": exact(kernel, "value", fresh), "d_x": exact(kernel, "gradient", fresh)}
    group = TensorGroup(SWEPT, dict.fromkeys(added, fresh.shape))
    tensors = {name: np.concatenate([golden.tensors[name], array]) for name, array in added.items()}
    return msgspec.structs.replace(golden, draws=(*golden.draws, group), tensors=tensors)
