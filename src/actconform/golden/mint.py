"""The only writer of goldens: draws the inputs, asks Arb for the truth, stores both."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.catalog.inputs import Draw, row_cotangent, row_draws, unary_regimes
from actconform.golden.store import MANIFEST, SCHEMA, Entry, Golden, Manifest, Subject, digest, read_manifest
from actconform.oracle.exact import exact, exact_table
from actconform.oracle.exact_rows import exact_rows
from actconform.oracle.formulas import FORMULAS
from actconform.types import ASPECTS, DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.types import Aspect, Kernel

GENERATOR = "actconform.golden.mint 1"
PRECISION = {"<f4": "input, exact", "<f8": "Arb, correctly rounded to binary64", "<i8": "exact"}
HARD_CANDIDATES = 1 << 18
HARD_KEPT = 48
TABLE_DTYPES = ("f16", "bf16")


def mint(kernels: Iterable[Kernel], folder: Path, progress: Callable[[str], None]) -> Manifest:
    """Write the goldens of `kernels` into `folder`, keep those of other subjects, and return the new manifest.

    The manifest is replaced last, in one step, so that a run that is stopped leaves the old state named as damaged rather
    than a new one that looks whole. Needs python-flint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = read_manifest(folder) if (folder / MANIFEST).exists() else Manifest(schema=SCHEMA, files={}, subjects={})
    files, subjects = dict(old.files), dict(old.subjects)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for kernel, (golden, tables) in zip(kernels := list(kernels), pool.map(_truths, kernels), strict=True):
            (folder / kernel.name).mkdir(exist_ok=True)
            for stale in (folder / kernel.name).glob("*.npy"):
                stale.unlink()
            files = {name: entry for name, entry in files.items() if not name.startswith(f"{kernel.name}/")}
            for name, array in golden.tensors.items():
                np.save(folder / kernel.name / f"{name}.npy", array, allow_pickle=False)
                files[f"{kernel.name}/{name}.npy"] = _entry(kernel, array)
            subjects[kernel.name] = Subject(draws=golden.draws, tables=tables)
            progress(kernel.name)
    manifest = Manifest(schema=SCHEMA, files=dict(sorted(files.items())), subjects=dict(sorted(subjects.items())))
    fresh = folder / f"{MANIFEST}.new"
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    fresh.replace(folder / MANIFEST)
    return manifest


def _entry(kernel: Kernel, array: NDArray[Any]) -> Entry:
    return Entry(
        dtype=array.dtype.str,
        shape=array.shape,
        sha256=digest(array),
        generator=GENERATOR,
        precision=PRECISION[array.dtype.str],
        seed=kernel.name,
    )


def _truths(kernel: Kernel) -> tuple[Golden, dict[str, dict[Aspect, str]]]:
    if kernel.form == "row":
        return _row_truths(kernel), {}
    tables = {
        dtype: {aspect: digest(exact_table(kernel, aspect, dtype)) for aspect in ASPECTS} for dtype in TABLE_DTYPES
    }
    return _unary_truths(kernel), tables


def _unary_truths(kernel: Kernel) -> Golden:
    regimes = unary_regimes(kernel)
    regimes["hard"] = np.concatenate([_hard_points(kernel, regimes["ordinary"], aspect) for aspect in range(2)])
    x = np.concatenate(list(regimes.values()))
    draws = tuple(Draw(regime, dict.fromkeys(("x", "y", "d_x"), part.shape)) for regime, part in regimes.items())
    return Golden(draws, {"x": x, "y": exact(kernel, "value", x), "d_x": exact(kernel, "gradient", x)})


def _hard_points(kernel: Kernel, near: NDArray[np.float32], aspect: int) -> NDArray[np.float32]:
    """Return the inputs, among many neighbours of `near`, whose result lies closest to midway between two float32."""
    bits = np.resize(near, HARD_CANDIDATES).view(np.uint32) ^ np.arange(HARD_CANDIDATES, dtype=np.uint32) >> np.uint32(
        8
    )
    x = bits.view(np.float32).astype(np.float64)
    with np.errstate(all="ignore"):
        y = FORMULAS[kernel.name][aspect](x, kernel.parameters)
    scaled = np.abs(np.frexp(y)[0]) * 2.0 ** DTYPES["f32"].precision
    fraction = scaled - np.floor(scaled)
    distance = np.where(np.isfinite(y) & (fraction > 0), np.abs(fraction - 0.5), np.inf)
    chosen = np.argsort(distance, kind="stable")[:HARD_KEPT]
    return x[chosen].astype(np.float32)


def _row_truths(kernel: Kernel) -> Golden:
    draws, parts = [], []
    for number, draw in enumerate(row_draws(kernel)):
        wide = {name: array.astype(np.float64) for name, array in draw.inputs.items()}
        tensors: dict[str, NDArray[Any]] = {**draw.inputs, **exact_rows(kernel, wide, None)}
        if kernel.differentiable:
            tensors["g"] = row_cotangent(kernel, number, draw, tensors["y"].shape)
            tensors |= exact_rows(kernel, wide, tensors["g"].astype(np.float64))
        draws.append(Draw(draw.regime, {name: array.shape for name, array in tensors.items()}))
        parts.append(tensors)
    return Golden(tuple(draws), {name: np.concatenate([part[name].ravel() for part in parts]) for name in parts[0]})
