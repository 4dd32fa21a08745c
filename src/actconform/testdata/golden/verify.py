"""Proof of the goldens: files against the manifest, inputs against the generator, formulas against the files, tables against Arb."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.errors import GoldenError
from actconform.oracle import truth
from actconform.testdata.golden.hard import not_hard
from actconform.testdata.golden.model_goldens import verify_model
from actconform.testdata.golden.store import computed, digest, load, read_golden_tensor, read_manifest, strangers
from actconform.testdata.golden.swept import SWEPT
from actconform.testdata.golden.training_goldens import verify_experiment
from actconform.testdata.regimes import row_cotangent, row_draws, unary_regimes
from actconform.types import ASPECTS, Kernel
from actconform.types.dtypes import DTYPES
from actconform.types.model import Model
from actconform.types.training import Experiment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.testdata.golden.store import Golden, Manifest, Provable

    F64 = NDArray[np.float64]

# the formulas' own worst error, in ULP of binary64, with a margin; 2**-149 is the smallest float32, below it error is absolute
FORMULA_LIMIT = 1024.0
SMALLEST = 2.0**-149


def verify_subjects(folder: Path, manifest: Manifest, subjects: Iterable[Provable]) -> dict[str, float]:
    """Return the worst error of each kernel's formulas against its goldens, in ULP of binary64, of each model's layers, and of
    each experiment's losses and gradient norms.

    Those of models and experiments count in ULP of a tensor's largest number. Raises GoldenError naming file and digest where a file is
    damaged or missing, kernel and input where a formula is off, model and tensor where a layer is, or its inputs moved.
    """
    worst = {}
    for kernel in subjects:
        golden = load(folder, manifest, kernel.name)
        with computed(kernel.name):
            if isinstance(kernel, Model):
                worst[kernel.name] = verify_model(kernel, golden) * 2.0**52
                continue
            if isinstance(kernel, Experiment):
                worst[kernel.name] = verify_experiment(kernel, golden) * 2.0**52
                continue
            errors = [_formula_error(kernel, tensor, got, stored) for tensor, got, stored in _pairs(kernel, golden)]
            worst[kernel.name] = max(errors, default=0.0)
    return worst


def verify_all(folder: Path, manifest: Manifest, subjects: Sequence[Provable], installed: Collection[str]) -> list[str]:
    """Return all that is wrong with the goldens of a folder, as messages: files, unlisted files, subjects, inputs, formulas.

    Every file is compared with the manifest, inputs and formulas only those of `subjects`; `installed` are the names of all
    installed ones, goldens of others are a problem.
    """
    problems = strangers(folder, manifest)
    for name, entry in manifest.files.items():
        try:
            read_golden_tensor(folder, name, entry)
        except GoldenError as error:
            problems.append(str(error))
    problems += [
        f"{folder}: goldens for {name!r}, but no kernel, model or experiment of that name is installed"
        for name in sorted(manifest.subjects.keys() - set(installed))
    ]
    for subject in subjects:
        try:
            verify_subjects(folder, manifest, [subject])
            if isinstance(subject, Kernel):
                golden = load(folder, manifest, subject.name)
                problems += _moved_inputs(subject, golden)
                problems += not_hard(subject, golden) if subject.form == "unary" else []
        except GoldenError as error:
            if str(error) not in problems:
                problems.append(str(error))
    return problems


def verify_folders(folders: Mapping[Path, Sequence[Provable]], installed: Collection[str]) -> list[str]:
    """Return all that is wrong with the goldens of several folders, each with the subjects whose goldens lie there."""
    problems = []
    for folder, subjects in folders.items():
        try:
            problems += verify_all(folder, read_manifest(folder), subjects, installed)
        except GoldenError as error:
            problems.append(str(error))
    return problems


def by_folder(
    subjects: Iterable[Provable], plugin_folders: Mapping[str, Path], folder: Path
) -> dict[Path, list[Provable]]:
    """Return the subjects by the folder of their goldens: that of their plugin where it keeps its own, else `folder`."""
    folders: dict[Path, list[Provable]] = {}
    for subject in subjects:
        folders.setdefault(plugin_folders.get(subject.name, folder), []).append(subject)
    return folders


def verify_tables(manifest: Manifest, kernel: Kernel) -> list[str]:
    """Return which 16-bit tables of a kernel differ from their digest or have none, recomputed with Arb near midpoints.

    Empty for row kernels, which have no tables. Raises ImportError without python-flint.
    """
    from actconform.oracle.arb.correctly_rounded import exact_table

    problems = []
    tables = manifest.subjects[kernel.name].tables
    for dtype in (name for name, fmt in DTYPES.items() if fmt.bits == 16 and kernel.form == "unary"):
        for aspect in ASPECTS:
            wanted = tables.get(dtype, {}).get(aspect, "nothing")
            got = digest(exact_table(kernel, aspect, dtype))
            if got != wanted:
                problems.append(f"{kernel.name}: {dtype} {aspect} table has SHA-256 {got}, the manifest says {wanted}")
    return problems


def _pairs(kernel: Kernel, golden: Golden) -> Iterator[tuple[str, F64, F64]]:
    """Yield each stored tensor by name, what the formula gives in its place, and what it holds."""
    if kernel.form == "unary":
        x = {"x": golden.tensors["x"]}
        yield ("y", truth(kernel, x)["y"], golden.tensors["y"])
        yield "d_x", truth(kernel, x, {"y": np.ones(golden.tensors["x"].size)})["d_x"], golden.tensors["d_x"]
        return
    for _, tensors in golden.split():
        inputs = {name: tensors[name] for name in kernel.inputs}
        yield ("y", truth(kernel, inputs)["y"], tensors["y"])
        if kernel.differentiable:
            gradients = truth(kernel, inputs, {"y": tensors["g"]})
            yield from ((name, gradients[name], tensors[name]) for name in gradients)


def _formula_error(kernel: Kernel, tensor: str, got: F64, stored: F64) -> float:
    got, stored = got.astype(np.float64), stored.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (got == stored) | (np.isnan(got) & np.isnan(stored))
        scale = np.spacing(np.maximum(np.abs(stored), SMALLEST))
        if kernel.form == "row" and got.size:
            # cancelling sums have absolute error: counted against the largest number of the tensor
            finite = np.abs(stored[np.isfinite(stored)])
            scale = np.maximum(scale, np.spacing(finite.max() if finite.size else 1.0))
        error = np.where(same, 0.0, np.abs(got - stored) / scale)
        if kernel.form == "unary":  # of rows no zero's sign is judged
            error[(got == 0) & (stored == 0) & (np.signbit(got) != np.signbit(stored))] = np.inf
    worst = int(np.argmax(np.where(np.isnan(error), np.inf, error))) if error.size else 0
    if error.size and not error.flat[worst] <= FORMULA_LIMIT:
        message = (
            f"golden {kernel.name}/{tensor}.npy: formula gives {float(got.flat[worst])!r} where the golden holds "
            f"{float(stored.flat[worst])!r} (element {worst}): one of them is wrong, or the file is another kernel's"
        )
        raise GoldenError(message)
    return float(error.flat[worst]) if error.size else 0.0


def _moved_inputs(kernel: Kernel, golden: Golden) -> list[str]:
    """Return a message for every regime whose stored inputs are not those that the generator draws."""
    moved: set[str] = set()
    if kernel.form == "unary":
        drawn = {regime: tensors["x"] for regime, tensors in golden.split() if regime not in ("hard", SWEPT)}
        fresh = unary_regimes(kernel)
        moved = drawn.keys() ^ fresh.keys()
        moved |= {regime for regime in drawn.keys() & fresh.keys() if not _same(drawn[regime], fresh[regime])}
    else:
        draws = row_draws(kernel)
        stored = list(golden.split())
        if len(draws) != len(stored):
            return [f"{kernel.name}: {len(stored)} stored draws, the generator makes {len(draws)}: mint them again"]
        for number, (draw, (regime, tensors)) in enumerate(zip(draws, stored, strict=True)):
            inputs = dict(draw.inputs)
            if kernel.differentiable:
                inputs["g"] = row_cotangent(kernel, number, draw, tensors["y"].shape)
            if not all(_same(tensors[name], array) for name, array in inputs.items()):
                moved.add(regime)
    return [
        f"{kernel.name}: the stored inputs of {regime!r} are not those that the generator draws"
        for regime in sorted(moved)
    ]


def _same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()
