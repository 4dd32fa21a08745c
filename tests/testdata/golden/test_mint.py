"""The writer of goldens: what it writes is what is committed, byte for byte, and other subjects are left alone."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.errors import GoldenError
from actconform.oracle.arb.correctly_rounded import exact
from actconform.testdata.golden.diff import diff
from actconform.testdata.golden.mint import add_swept, mint
from actconform.testdata.golden.store import digest, golden_dir, load, read_manifest, strangers
from actconform.testdata.golden.verify import verify_all

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("flint", reason='minting needs python-flint: pip install "actconform[golden]"')

BY_NAME = {kernel.name: kernel for kernel in UNARY + ROWS}
KERNELS = [BY_NAME[name] for name in ("sigmoid", "relu", "softmax")]
COMMITTED = golden_dir()


def silent(_: str) -> None:
    pass


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def minted(tmp_path_factory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("goldens")
    told: list[str] = []
    mint(KERNELS, folder, told.append)
    return folder, told


def test_minting_writes_the_committed_bytes(minted):
    folder, told = minted
    names = [kernel.name for kernel in KERNELS]
    assert told == names
    written = contents(folder)
    committed = {name: data for name, data in contents(COMMITTED).items() if name.split("/")[0] in names}
    assert written.keys() == {*committed, "manifest.json"}
    for name, data in committed.items():
        assert written[name] == data, name
    whole = json.loads((COMMITTED / "manifest.json").read_text())
    fresh = json.loads(written["manifest.json"])
    assert fresh["schema"] == whole["schema"]
    assert fresh["files"] == {name: entry for name, entry in whole["files"].items() if name in committed}
    assert fresh["subjects"] == {name: whole["subjects"][name] for name in sorted(names)}


def test_what_was_minted_is_verified(minted):
    folder, _ = minted
    assert verify_all(folder, read_manifest(folder), KERNELS, BY_NAME) == []


def test_minting_one_kernel_mends_it_and_keeps_the_others(minted, tmp_path: Path):
    folder, _ = minted
    for name, data in contents(folder).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "softmax/y.npy").write_bytes(b"damaged")
    (tmp_path / "softmax/old.npy").write_bytes(b"of an earlier release")
    assert mint([BY_NAME["softmax"]], tmp_path, silent).subjects.keys() == {"relu", "sigmoid", "softmax"}
    assert contents(tmp_path) == contents(folder)
    assert diff(folder, tmp_path) == []


def test_a_run_that_is_stopped_leaves_the_old_manifest(tmp_path: Path):
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    softmax, relu = BY_NAME["softmax"], BY_NAME["relu"]
    with pytest.raises(KeyboardInterrupt):
        mint([softmax], tmp_path, stop)
    with pytest.raises(GoldenError, match="no such file"):
        read_manifest(tmp_path)
    mint([softmax], tmp_path, silent)
    old = contents(tmp_path)["manifest.json"]
    with pytest.raises(KeyboardInterrupt):
        mint([relu], tmp_path, stop)
    assert contents(tmp_path)["manifest.json"] == old
    assert strangers(tmp_path, read_manifest(tmp_path))  # what the run left behind is no golden


def test_a_manifest_of_another_schema_is_not_overwritten(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"schema": 2}')
    with pytest.raises(GoldenError, match="schema 2"):
        mint([BY_NAME["softmax"]], tmp_path, silent)
    assert contents(tmp_path) == {"manifest.json": b'{"schema": 2}'}


@pytest.mark.parametrize("name", ["sigmoid", "gelu-erf", "mish"])
def test_hard_points_have_results_next_to_the_middle_of_two_float32(name: str):
    golden = load(COMMITTED, read_manifest(COMMITTED), name)
    (hard,) = (tensors for regime, tensors in golden.split() if regime == "hard")
    value, slope = hard["x"][:48], hard["x"][48:]
    assert value.size == slope.size == 48
    for aspect, x, stored in (("value", value, hard["y"][:48]), ("gradient", slope, hard["d_x"][48:])):
        assert np.array_equal(exact(BY_NAME[name], aspect, x), stored)
        near = stored.astype(np.float32)
        gap = np.spacing(np.abs(near)).astype(np.float64)
        from_middle = np.abs(np.abs(stored - near.astype(np.float64)) / gap - 0.5)
        assert from_middle.max() < 2.0**-9


MODELS = {model.name: model for model in networks()}
TWO = [MODELS["linear-stack"], MODELS["blobs-mlp@published"]]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The committed goldens of two models, with a manifest of these alone."""
    whole, names = read_manifest(COMMITTED), [model.name for model in TWO]
    for name in names:
        shutil.copytree(COMMITTED / name, tmp_path / name)
    files = {name: entry for name, entry in whole.files.items() if name.split("/")[0] in names}
    subjects = {name: subject for name, subject in whole.subjects.items() if name in names}
    fresh = msgspec.structs.replace(whole, files=files, subjects=subjects)
    (tmp_path / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(fresh), indent=1) + b"\n")
    return tmp_path


def shift(folder: Path, name: str, share: float) -> None:
    """Move the first number of a tensor by a share of its largest, and let the manifest's digest fit."""
    array = np.load(folder / name)
    array[0] += share * np.abs(array).max()
    np.save(folder / name, array)
    manifest = read_manifest(folder)
    manifest.files[name] = msgspec.structs.replace(manifest.files[name], sha256=digest(array))
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def test_minting_models_again_changes_no_byte(models: Path):
    before = contents(models)
    told: list[str] = []
    mint(TWO, models, told.append)
    assert told == ["linear-stack", "blobs-mlp@published"]
    assert contents(models) == before


def test_minting_keeps_a_number_that_is_within_1e_12_and_mends_one_that_is_not(models: Path):
    right = contents(models)
    shift(models, "linear-stack/layer.dense3.npy", 3e-13)
    near = contents(models)["linear-stack/layer.dense3.npy"]
    assert near != right["linear-stack/layer.dense3.npy"]
    shift(models, "linear-stack/d_x.npy", 1e-9)
    (models / "blobs-mlp@published/layer.loss.npy").write_bytes(b"damaged")
    mint(TWO, models, silent)
    after = contents(models)
    assert after["linear-stack/layer.dense3.npy"] == near
    assert load(models, read_manifest(models), "linear-stack").tensors["d_x"][0] == pytest.approx(
        load(COMMITTED, read_manifest(COMMITTED), "linear-stack").tensors["d_x"][0], rel=1e-12
    )
    assert verify_all(models, read_manifest(models), TWO, MODELS) == []


def test_minting_fresh_models_writes_the_committed_tensors(tmp_path: Path):
    mint(TWO, tmp_path, silent)
    manifest, whole = read_manifest(tmp_path), read_manifest(COMMITTED)
    assert verify_all(tmp_path, manifest, TWO, MODELS) == []
    for name, entry in manifest.files.items():
        there = whole.files[name]
        assert (entry.shape, entry.dtype, entry.seed, entry.precision, entry.generator) == (
            there.shape,
            there.dtype,
            there.seed,
            there.precision,
            there.generator,
        )
        if entry.dtype == "<f4":  # drawn: the same on every machine
            assert entry.sha256 == there.sha256
    assert {name: whole.subjects[name] for name in manifest.subjects} == manifest.subjects


def test_swept_points_are_added_once_with_their_truth_and_survive_the_next_mint(minted, tmp_path):
    folder = shutil.copytree(minted[0], tmp_path / "goldens")
    before = contents(folder)
    sigmoid, old = BY_NAME["sigmoid"], load(folder, read_manifest(folder), "sigmoid")
    x = np.array([0.123456, 7.654321, float(old.tensors["x"][5])], np.float32)
    assert (add_swept(sigmoid, x, folder), add_swept(sigmoid, x, folder)) == (2, 0)
    changed = {name for name, data in contents(folder).items() if before[name] != data}
    assert changed == {"manifest.json", *(f"sigmoid/{name}.npy" for name in ("x", "y", "d_x"))}
    for minted_again in (False, True):
        if minted_again:
            mint([sigmoid], folder, silent)
        *drawn, (regime, tensors) = load(folder, read_manifest(folder), "sigmoid").split()
        assert [name for name, _ in drawn] == [name for name, _ in old.split()]
        assert (regime, tensors["x"].tolist()) == ("swept", x[:2].tolist())
        np.testing.assert_array_equal(tensors["y"], exact(sigmoid, "value", x[:2]))
        np.testing.assert_array_equal(tensors["d_x"], exact(sigmoid, "gradient", x[:2]))
        assert verify_all(folder, read_manifest(folder), [sigmoid], [kernel.name for kernel in KERNELS]) == []
