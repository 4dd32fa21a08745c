"""Proof of the goldens: a number, an input, a formula or a table that is off is named; what is right is not."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.errors import GoldenError
from actconform.oracle.float64.registry import FORMULAS, KernelFormula
from actconform.oracle.float64.rows import ROW_FORMULAS, RowFormula
from actconform.testdata.golden.hard import not_hard
from actconform.testdata.golden.store import Golden, digest, golden_dir, load, read_manifest
from actconform.testdata.golden.verify import verify_all, verify_subjects, verify_tables

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.testdata.golden.store import Manifest

BY_NAME = {one.name: one for one in (*UNARY, *ROWS, *networks(), *experiments())}
SUBJECTS = ("sigmoid", "relu", "softmax", "prelu", "argmax")
KERNELS = [BY_NAME[name] for name in SUBJECTS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The goldens of a few kernels, with a manifest of these alone."""
    whole = read_manifest(golden_dir())
    files = {name: entry for name, entry in whole.files.items() if name.split("/")[0] in SUBJECTS}
    for name in SUBJECTS:
        shutil.copytree(golden_dir() / name, tmp_path / name)
    write(tmp_path, msgspec.structs.replace(whole, files=files, subjects={n: whole.subjects[n] for n in SUBJECTS}))
    return tmp_path


def write(folder: Path, manifest: Manifest) -> None:
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def forge(folder: Path, name: str, place: int, number: float) -> None:
    """Put another number into a tensor, and the digest that fits into the manifest."""
    array = np.load(folder / name)
    array[place] = number
    np.save(folder / name, array)
    manifest = read_manifest(folder)
    manifest.files[name] = msgspec.structs.replace(manifest.files[name], sha256=digest(array))
    write(folder, manifest)


def problems(folder: Path) -> list[str]:
    return verify_all(folder, read_manifest(folder), KERNELS, BY_NAME)


def test_the_committed_goldens_and_the_formulas_agree():
    manifest = read_manifest(golden_dir())
    assert verify_all(golden_dir(), manifest, list(BY_NAME.values()), BY_NAME) == []
    worst = verify_subjects(golden_dir(), manifest, BY_NAME.values())
    assert worst.keys() == BY_NAME.keys()
    assert 0 < max(worst.values()) < 1024
    assert worst["relu"] == worst["argmax"] == 0


def test_a_few_kernels_of_a_whole_folder_are_verified_without_complaint_about_the_others():
    assert verify_all(golden_dir(), read_manifest(golden_dir()), [BY_NAME["relu"]], BY_NAME) == []


def test_a_small_folder_is_verified(folder: Path):
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("sigmoid/y.npy", 0.7310585786300049 * (1 + 1e-12)),
        ("sigmoid/d_x.npy", 0.19661193324148185 * (1 + 1e-12)),
        ("softmax/y.npy", 0.5),
        ("softmax/d_x.npy", 0.5),
        ("prelu/d_slope.npy", 1e3),
        ("argmax/y.npy", 3),
    ],
)
def test_a_number_that_is_off_is_found_though_its_digest_fits(folder: Path, name: str, wrong: float):
    place = 0
    if name.startswith("sigmoid"):
        place = int(np.nanargmin(np.abs(np.load(folder / name) - wrong)))
    forge(folder, name, place, wrong)
    (problem,) = problems(folder)
    assert problem.startswith(f"golden {name}: formula gives")
    assert f"element {place}" in problem
    assert f"{float(wrong)!r}" in problem


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
@pytest.mark.parametrize("tensor", ["y", "d_x"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_in_place_of_a_number_is_found(folder: Path, name: str, tensor: str, wrong: float):
    forge(folder, f"{name}/{tensor}.npy", 2, wrong)
    assert len(problems(folder)) == 1
    assert f"golden {name}/{tensor}.npy: formula gives" in problems(folder)[0]


@pytest.mark.parametrize("name", ["sigmoid", "relu", "softmax"])
def test_a_number_in_place_of_nan_is_found(folder: Path, name: str):
    place = int(np.flatnonzero(np.isnan(np.load(folder / name / "y.npy")))[0])
    forge(folder, f"{name}/y.npy", place, 1.0)
    (problem,) = problems(folder)
    assert "formula gives" in problem
    assert "nan" in problem


def test_a_golden_under_a_wrong_name_is_named_though_its_digests_fit(folder: Path):
    for tensor in ("x", "y", "d_x"):
        shutil.copy(folder / "sigmoid" / f"{tensor}.npy", folder / "relu" / f"{tensor}.npy")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] |= {
        f"relu/{tensor}.npy": manifest["files"][f"sigmoid/{tensor}.npy"] for tensor in ("x", "y", "d_x")
    }
    manifest["subjects"]["relu"] = manifest["subjects"]["sigmoid"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(GoldenError, match=r"golden relu/y.npy: .* or the file is another kernel's"):
        verify_subjects(folder, read_manifest(folder), [BY_NAME["relu"]])


@pytest.mark.parametrize("aspect", [0, 1])
def test_points_called_hard_are_proven_to_be_hard(aspect: int):
    kernel = BY_NAME["sigmoid"]
    golden = load(golden_dir(), read_manifest(golden_dir()), "sigmoid")
    assert not_hard(kernel, golden) == []
    start = {draw.regime: 0 for draw in golden.draws}
    at = 0
    for draw in golden.draws:
        start[draw.regime], at = at, at + draw.shapes["x"][0]
    easy = slice(start["hard"] + 48 * aspect, start["hard"] + 48 * (aspect + 1))
    tensors = {name: array.copy() for name, array in golden.tensors.items()}
    for array in tensors.values():  # true, and ordinary
        array[easy] = array[:48]
    (problem,) = not_hard(kernel, Golden(golden.draws, tensors))
    assert problem.startswith(f"sigmoid: points called 'hard' are not: {('y', 'd_x')[aspect]} ")


@pytest.mark.parametrize("name", ["linear", "relu", "hard-shrink", "leaky-relu-0.2"])
def test_a_function_whose_results_are_float32_or_few_has_no_hard_points_to_prove(name: str):
    assert not_hard(BY_NAME[name], load(golden_dir(), read_manifest(golden_dir()), name)) == []


def test_a_zero_of_the_other_sign_is_found(folder: Path):
    zeros = np.flatnonzero(np.load(folder / "relu/y.npy") == 0)
    forge(folder, "relu/y.npy", int(zeros[3]), -0.0)
    (problem,) = problems(folder)
    assert "golden relu/y.npy: formula gives" in problem
    assert "-0.0" in problem


def test_a_formula_that_is_off_is_found(folder: Path, monkeypatch):
    right = FORMULAS["sigmoid"]
    off = KernelFormula(lambda x, parameters: right.value(x, parameters) * (1 + 1e-12), right.derivative)
    monkeypatch.setitem(FORMULAS, "sigmoid", off)
    assert [problem.split(":")[0] for problem in problems(folder)] == ["golden sigmoid/y.npy"]
    with pytest.raises(GoldenError, match=r"golden sigmoid/y.npy: formula gives .* where the golden holds"):
        verify_subjects(folder, read_manifest(folder), KERNELS)
    monkeypatch.setitem(
        FORMULAS, "sigmoid", KernelFormula(right.value, lambda x, parameters: right.derivative(-x, parameters))
    )
    assert problems(folder) == []  # sigmoid' is even: a formula that is written otherwise is none that is off
    monkeypatch.setitem(FORMULAS, "sigmoid", KernelFormula(right.value, right.value))
    assert len(problems(folder)) == 1


def test_a_row_formula_that_is_off_is_found(folder: Path, monkeypatch):
    right = ROW_FORMULAS["softmax"]
    monkeypatch.setitem(ROW_FORMULAS, "softmax", RowFormula(right.value, lambda x, g, kernel: right.vjp(x, -g, kernel)))
    assert [problem.split(":")[0] for problem in problems(folder)] == ["golden softmax/d_x.npy"]


@pytest.mark.parametrize("name", ["sigmoid", "softmax", "prelu"])
def test_an_input_beside_which_another_truth_stands_is_found(folder: Path, name: str):
    x = np.load(folder / name / "x.npy")
    place = x.size // 4 + int(np.argmax(np.abs(x[x.size // 4 :]) > 1))  # in the ordinary regime, in a long row
    forge(folder, f"{name}/x.npy", place, 1.5 * x[place])
    (problem,) = problems(folder)
    assert problem.startswith(f"golden {name}/")


def test_an_input_at_which_the_truth_is_the_same_is_found_by_the_generator_alone(folder: Path):
    negative = int(np.flatnonzero(np.load(folder / "relu/x.npy") < -1)[0])
    forge(folder, "relu/x.npy", negative, -1.5)
    assert problems(folder) == ["relu: the stored inputs of 'ordinary' are not those that the generator draws"]


def test_a_cotangent_that_moved_is_found(folder: Path):
    g = np.load(folder / "softmax/g.npy")
    forge(folder, "softmax/g.npy", 0, -g[0])  # rows of length 1: every cotangent is pulled back to 0
    assert problems(folder) == ["softmax: the stored inputs of 'ordinary' are not those that the generator draws"]


def test_a_regime_of_another_name_and_a_missing_draw_are_found(folder: Path):
    manifest = read_manifest(folder)
    relu, softmax = manifest.subjects["relu"], manifest.subjects["softmax"]
    renamed = msgspec.structs.replace(relu.draws[0], regime="ordinarx")
    manifest.subjects["relu"] = msgspec.structs.replace(relu, draws=(renamed, *relu.draws[1:]))
    first, second = softmax.draws[:2]
    joined = msgspec.structs.replace(
        first,
        shapes={name: (sum(int(np.prod(draw.shapes[name])) for draw in (first, second)), 1) for name in first.shapes},
    )
    manifest.subjects["softmax"] = msgspec.structs.replace(softmax, draws=(joined, *softmax.draws[2:]))
    write(folder, manifest)
    told = "\n".join(problems(folder))
    assert "relu: the stored inputs of 'ordinarx'" in told
    assert "relu: the stored inputs of 'ordinary'" in told
    assert "softmax" in told


def test_damaged_missing_and_extra_files_and_subjects_are_all_told_in_one_go(folder: Path):
    (folder / "relu/y.npy").unlink()
    (folder / "sigmoid/y.npy").write_bytes((folder / "sigmoid/y.npy").read_bytes()[:-8])
    (folder / "notes.txt").write_text("mine")
    manifest = read_manifest(folder)
    manifest.subjects["cube"] = manifest.subjects["relu"]
    del manifest.subjects["argmax"]
    write(folder, manifest)
    told = "\n".join(problems(folder))
    assert len(problems(folder)) == 5
    assert f"{folder / 'relu/y.npy'}: missing golden" in told
    assert f"{folder / 'sigmoid/y.npy'}: damaged golden" in told
    assert f"{folder / 'notes.txt'}: extra file" in told
    assert "goldens for 'cube', but no kernel, model or experiment of that name is installed" in told
    assert "no goldens for 'argmax'" in told


def test_a_table_whose_digest_is_off_or_missing_is_found(folder: Path):
    pytest.importorskip("flint", reason="tables are made with python-flint")
    manifest = read_manifest(folder)
    relu = BY_NAME["relu"]
    assert verify_tables(manifest, relu) == []
    assert verify_tables(manifest, BY_NAME["softmax"]) == []
    tables = {dtype: dict(aspects) for dtype, aspects in manifest.subjects["relu"].tables.items()}
    right = tables["bf16"]["value"]
    tables["bf16"]["value"] = tables["f16"]["value"]
    del tables["f16"]["gradient"]
    manifest.subjects["relu"] = msgspec.structs.replace(manifest.subjects["relu"], tables=tables)
    missing, off = verify_tables(manifest, relu)
    assert missing.startswith("relu: f16 gradient table has SHA-256")
    assert missing.endswith("the manifest says nothing")
    assert off == f"relu: bf16 value table has SHA-256 {right}, the manifest says {tables['f16']['value']}"
