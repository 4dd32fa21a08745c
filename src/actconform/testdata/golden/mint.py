"""The only writer of goldens: draws the inputs, computes the truth with Arb, or for models and experiments in float64, and stores both."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.errors import GoldenError
from actconform.files import write_bytes
from actconform.oracle.arb.correctly_rounded import exact, exact_table
from actconform.oracle.arb.rows import exact_rows
from actconform.testdata.golden.hard import hard_points
from actconform.testdata.golden.model_goldens import keep_unmoved, model_golden
from actconform.testdata.golden.store import (
    MANIFEST,
    SCHEMA,
    Entry,
    Golden,
    Manifest,
    StoredSubject,
    computed,
    digest,
    load,
    read_manifest,
)
from actconform.testdata.golden.swept import swept_points, with_points
from actconform.testdata.golden.training_goldens import experiment_golden
from actconform.testdata.regimes import TensorGroup, row_cotangent, row_draws, unary_regimes
from actconform.types import ASPECTS, Kernel
from actconform.types.model import Model
from actconform.types.training import Experiment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.testdata.golden.store import Provable
    from actconform.types import Aspect

GENERATOR = "actconform.golden.mint 1"
PRECISION = {"<f4": "input, exact", "<f8": "Arb, correctly rounded to binary64", "<i8": "exact"}
MODEL_PRECISION = {"<f4": "input, exact", "<f8": "float64 NumPy, kept within 1e-12 of the tensor's largest number"}
TABLE_DTYPES = ("f16", "bf16")


def mint(subjects: Iterable[Provable], folder: Path, progress: Callable[[str], None]) -> Manifest:
    """Write the goldens of `subjects` into `folder`, keep those of others, and return the new manifest.

    The manifest is replaced last, in one step, so that a run that is stopped leaves the old state named as damaged rather
    than a new one that looks complete. Kernels need python-flint; the tensors of models and experiments keep their bytes where
    they moved by less than 1e-12. Raises GoldenError naming a subject whose truth cannot be computed, as where a plugin registered no formula.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = read_manifest(folder) if (folder / MANIFEST).exists() else Manifest(schema=SCHEMA, files={}, subjects={})
    manifest = old
    subjects = list(subjects)
    swept = [swept_points(folder, old, subject) for subject in subjects]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for subject, (fresh, tables) in zip(subjects, pool.map(_named_truths, subjects, swept), strict=True):
            manifest = _written(folder, manifest, subject, _merged(folder, old, subject, fresh), tables)
            progress(subject.name)
    return _write_manifest(folder, manifest)


def add_swept(kernel: Kernel, x: NDArray[np.float32], folder: Path) -> int:
    """Add points that a sweep brought to light to a unary kernel's golden, and return how many were not there yet.

    All else of the folder keeps its bytes. Needs python-flint. Raises GoldenError where the folder has no golden of the kernel.
    """
    manifest = read_manifest(folder)
    golden = load(folder, manifest, kernel.name)
    longer = with_points(kernel, golden, x)
    added: int = longer.tensors["x"].size - golden.tensors["x"].size
    if added:
        tables = manifest.subjects[kernel.name].tables
        _write_manifest(folder, _written(folder, manifest, kernel, longer, tables))
    return added


def _written(
    folder: Path, manifest: Manifest, subject: Provable, golden: Golden, tables: dict[str, dict[Aspect, str]]
) -> Manifest:
    """Write the tensors of a golden in place of those that are there, and return the manifest that names them."""
    (folder / subject.name).mkdir(exist_ok=True)
    for stale in (folder / subject.name).glob("*.npy"):
        stale.unlink()
    files = {name: entry for name, entry in manifest.files.items() if not name.startswith(f"{subject.name}/")}
    for name, array in golden.tensors.items():
        np.save(folder / subject.name / f"{name}.npy", array, allow_pickle=False)
        files[f"{subject.name}/{name}.npy"] = _entry(subject, array)
    stored = {**manifest.subjects, subject.name: StoredSubject(draws=golden.draws, tables=tables)}
    return msgspec.structs.replace(manifest, files=files, subjects=stored)


def _write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    ordered = Manifest(
        schema=SCHEMA, files=dict(sorted(manifest.files.items())), subjects=dict(sorted(manifest.subjects.items()))
    )
    write_bytes(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    return ordered


def _merged(folder: Path, old: Manifest, subject: Provable, golden: Golden) -> Golden:
    """Return a new golden in which the tensors of a model or experiment that have not moved keep their stored bytes."""
    if isinstance(subject, Kernel) or subject.name not in old.subjects:
        return golden
    try:
        return keep_unmoved(load(folder, old, subject.name), golden)
    except GoldenError:  # damaged: written anew
        return golden


def _entry(subject: Provable, array: NDArray[Any]) -> Entry:
    precision = PRECISION if isinstance(subject, Kernel) else MODEL_PRECISION
    return Entry(
        dtype=array.dtype.str,
        shape=array.shape,
        sha256=digest(array),
        generator=GENERATOR,
        precision=precision[array.dtype.str],
        seed=subject.name,
    )


def _named_truths(subject: Provable, swept: NDArray[np.float32]) -> tuple[Golden, dict[str, dict[Aspect, str]]]:
    with computed(subject.name):
        return _truths(subject, swept)


def _truths(subject: Provable, swept: NDArray[np.float32]) -> tuple[Golden, dict[str, dict[Aspect, str]]]:
    if isinstance(subject, Model):
        return model_golden(subject), {}
    if isinstance(subject, Experiment):
        return experiment_golden(subject), {}
    if subject.form == "row":
        return _row_truths(subject), {}
    tables = {
        dtype: {aspect: digest(exact_table(subject, aspect, dtype)) for aspect in ASPECTS} for dtype in TABLE_DTYPES
    }
    return with_points(subject, _unary_truths(subject), swept), tables


def _unary_truths(kernel: Kernel) -> Golden:
    regimes = unary_regimes(kernel)
    regimes["hard"] = np.concatenate([hard_points(kernel, regimes["ordinary"], aspect) for aspect in range(2)])
    x = np.concatenate(list(regimes.values()))
    draws = tuple(TensorGroup(regime, dict.fromkeys(("x", "y", "d_x"), part.shape)) for regime, part in regimes.items())
    return Golden(draws, {"x": x, "y": exact(kernel, "value", x), "d_x": exact(kernel, "gradient", x)})


def _row_truths(kernel: Kernel) -> Golden:
    draws, parts = [], []
    for number, draw in enumerate(row_draws(kernel)):
        wide = {name: array.astype(np.float64) for name, array in draw.inputs.items()}
        tensors: dict[str, NDArray[Any]] = {**draw.inputs, **exact_rows(kernel, wide, None)}
        if kernel.differentiable:
            tensors["g"] = row_cotangent(kernel, number, draw, tensors["y"].shape)
            tensors |= exact_rows(kernel, wide, tensors["g"].astype(np.float64))
        draws.append(TensorGroup(draw.regime, {name: array.shape for name, array in tensors.items()}))
        parts.append(tensors)
    return Golden(tuple(draws), {name: np.concatenate([part[name].ravel() for part in parts]) for name in parts[0]})
