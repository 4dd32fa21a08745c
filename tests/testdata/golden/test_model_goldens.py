"""The goldens of models: whole for small ones, sampled for published sizes, and any number that moved is named."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

import actconform.testdata.golden.model_goldens as room
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.errors import GoldenError
from actconform.oracle.layers.model import gradients, values
from actconform.testdata.golden.model_goldens import (
    SAMPLES,
    distance,
    keep_unmoved,
    model_golden,
    sampled,
    verify_model,
)
from actconform.testdata.golden.store import Golden, digest, golden_dir, load, read_manifest
from actconform.testdata.golden.verify import verify_all, verify_subjects
from actconform.testdata.model_tensors import draw_inputs, draw_parameters

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {model.name: model for model in networks()}
SMALL = [name for name in MODELS if PUBLISHED not in name]
STACK = MODELS["linear-stack"]
FIVE = MODELS["blobs-mlp@published"]
COMMITTED = golden_dir()


def committed(name: str) -> Golden:
    return load(COMMITTED, read_manifest(COMMITTED), name)


def moved(golden: Golden, name: str, place: int, by: float) -> Golden:
    """Return the golden with one number another one."""
    tensors = {key: array.copy() for key, array in golden.tensors.items()}
    tensors[name][place] += by
    return msgspec.structs.replace(golden, tensors=tensors)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The goldens of two models, with a manifest of these alone."""
    whole, names = read_manifest(COMMITTED), (STACK.name, FIVE.name)
    for name in names:
        shutil.copytree(COMMITTED / name, tmp_path / name)
    files = {name: entry for name, entry in whole.files.items() if name.split("/")[0] in names}
    subjects = {name: whole.subjects[name] for name in names}
    write(tmp_path, msgspec.structs.replace(whole, files=files, subjects=subjects))
    return tmp_path


def write(folder: Path, manifest: Any) -> None:
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def forge(folder: Path, name: str, place: int, by: float) -> None:
    """Move a stored number, and let the manifest's digest fit."""
    array = np.load(folder / name)
    array[place] += by
    np.save(folder / name, array)
    manifest = read_manifest(folder)
    manifest.files[name] = msgspec.structs.replace(manifest.files[name], sha256=digest(array))
    write(folder, manifest)


def problems(folder: Path) -> list[str]:
    return verify_all(folder, read_manifest(folder), [STACK, FIVE], MODELS)


# What is stored


@pytest.mark.parametrize("name", SMALL)
def test_a_small_model_has_all_that_is_drawn_and_all_that_is_true_of_it(name: str) -> None:
    model, golden = MODELS[name], committed(name)
    ((regime, tensors),) = golden.split()
    drawn = {**draw_inputs(model), **draw_parameters(model)}
    layers = values(model, drawn)
    d = gradients(model, drawn, layers)
    wanted = {
        **drawn,
        **{f"layer.{key}": one for key, one in layers.items()},
        **{f"d_{key}": one for key, one in d.items()},
    }
    assert regime == "ordinary"
    assert tensors.keys() == wanted.keys()
    for tensor, array in wanted.items():
        assert tensors[tensor].shape == np.shape(array)
        if tensor in drawn:
            assert tensors[tensor].tobytes() == array.tobytes()
            assert tensors[tensor].dtype == np.float32
        else:
            assert tensors[tensor].dtype == np.float64
            # nothing that another library sums in another order could move further
            np.testing.assert_allclose(tensors[tensor], array, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in MODELS if PUBLISHED in name])
def test_a_published_model_has_a_norm_and_256_elements_of_each_tensor(name: str) -> None:
    model, golden = MODELS[name], committed(name)
    sizes = {f"layer.{key}": int(np.prod((model.batch, *shape))) for key, shape in model.shapes.items()}
    sizes["layer.loss"] = 1
    shapes = {one.name: (model.batch, *one.shape) for one in model.inputs}
    shapes |= {one.name: one.shape for one in model.parameters}
    sizes |= {f"d_{key}": int(np.prod(shapes[key])) for key in model.differentiable}
    assert {tensor: array.size for tensor, array in golden.tensors.items()} == {
        tensor: 1 + min(size, SAMPLES) for tensor, size in sizes.items()
    }
    assert {array.dtype for array in golden.tensors.values()} == {np.dtype(np.float64)}
    assert sum(path.stat().st_size for path in (COMMITTED / name).iterdir()) < 300_000


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 2), (255, 255), (256, 256), (257, 256), (10_000, 256)])
def test_samples_are_spread_evenly_from_the_first_to_the_last(size: int, count: int) -> None:
    got = sampled(np.arange(size, dtype=np.float64).reshape(1, -1, 1))
    assert got.shape == (1 + count,)
    assert got[0] == pytest.approx(np.sqrt(np.sum(np.arange(size, dtype=np.float64) ** 2)))
    steps = np.diff(got[1:])
    assert (got[1], got[-1]) == (0, size - 1)
    assert size < 3 or steps.max() - steps.min() <= 1
    assert steps.size == 0 or steps.min() >= 1


def test_a_scalar_is_sampled_as_itself() -> None:
    np.testing.assert_array_equal(sampled(np.array(-2.0)), [2.0, -2.0])


# Verification


@pytest.mark.parametrize("model", [*(MODELS[name] for name in SMALL), FIVE], ids=lambda model: model.name)
def test_what_is_made_is_verified(model: Any) -> None:
    assert verify_model(model, model_golden(model)) == 0.0
    assert verify_model(model, committed(model.name)) <= 1e-12


@pytest.mark.parametrize("tensor", ["x", "target", "dense2.kernel"])
def test_an_input_or_parameter_that_moved_is_named(folder: Path, tensor: str) -> None:
    forge(folder, f"linear-stack/{tensor}.npy", 3, 1e-6)
    assert problems(folder) == [f"linear-stack: the stored {tensor} are not what the generator draws"]
    with pytest.raises(GoldenError, match="not what the generator draws"):
        verify_subjects(folder, read_manifest(folder), [STACK])


@pytest.mark.parametrize("model", [STACK.name, FIVE.name])
@pytest.mark.parametrize("tensor", ["layer.dense2", "layer.loss", "d_x", "d_dense1.bias"])
def test_a_value_or_gradient_that_moved_is_named_and_how_far(folder: Path, model: str, tensor: str) -> None:
    largest = np.abs(np.load(folder / model / f"{tensor}.npy")).max()
    forge(folder, f"{model}/{tensor}.npy", 0, 1e-11 * largest)
    (problem,) = problems(folder)
    assert problem.startswith(
        f"{model}: {tensor} differs from its golden by 1e-11 of its largest number, more than 1e-12"
    )


def test_a_value_that_moved_by_less_than_sums_do_between_machines_is_no_problem(folder: Path) -> None:
    largest = np.abs(np.load(folder / "linear-stack/layer.dense2.npy")).max()
    forge(folder, "linear-stack/layer.dense2.npy", 0, 3e-13 * largest)
    assert problems(folder) == []
    worst = verify_subjects(folder, read_manifest(folder), [STACK, FIVE])
    assert worst.keys() == {STACK.name, FIVE.name}
    assert 600 < worst[STACK.name] < 4600  # in 2^-52 of the largest number


def test_a_number_that_is_nan_is_never_near(folder: Path) -> None:
    forge(folder, "linear-stack/d_x.npy", 1, np.nan)
    (problem,) = problems(folder)
    assert problem.startswith("linear-stack: d_x differs from its golden by nan")


def test_another_description_is_told_to_be_minted_again() -> None:
    golden = committed(STACK.name)
    larger = msgspec.structs.replace(STACK, batch=5)
    with pytest.raises(GoldenError, match="linear-stack: the stored tensors are not those of its description: mint"):
        verify_model(larger, golden)
    tensors = {name: array for name, array in golden.tensors.items() if name != "d_x"}
    draw = msgspec.structs.replace(
        golden.draws[0], shapes={k: v for k, v in golden.draws[0].shapes.items() if k != "d_x"}
    )
    with pytest.raises(GoldenError, match="not those of its description"):
        verify_model(STACK, Golden((draw,), tensors))


def test_formulas_that_are_off_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(model: Any, tensors: Any, *rest: Any) -> Any:
        found = values(model, tensors, *rest)
        return {name: value * (1 + 1e-11) if name == "dense3" else value for name, value in found.items()}

    monkeypatch.setattr(room, "values", off)
    assert problems(folder)[0].startswith("linear-stack: layer.dense3 differs from its golden by 1e-11")


def test_the_gradient_of_an_attentions_keys_may_be_other_rounding_but_no_number() -> None:
    """The bias of the keys shifts all scores of a row alike: what is stored of its gradient is what sums left over."""
    model, golden = MODELS["attention-block"], committed("attention-block")
    keys = "d_attention.k-bias"
    scale = max(np.abs(array).max() for name, array in golden.tensors.items() if name.startswith("d_"))
    assert np.abs(golden.tensors[keys]).max() < 1e-15 * scale
    assert verify_model(model, moved(golden, keys, 0, 3e-17 * scale)) <= 1e-12
    with pytest.raises(GoldenError, match=f"attention-block: {keys} differs"):
        verify_model(model, moved(golden, keys, 0, 2e-14 * scale))


# Minting again


def test_bytes_are_kept_where_numbers_moved_by_less_than_1e_12() -> None:
    old = committed(STACK.name)
    largest = float(np.abs(old.tensors["layer.dense3"]).max())
    near, far = (moved(old, "layer.dense3", 2, by * largest) for by in (4e-13, 4e-12))
    assert keep_unmoved(old, near).tensors["layer.dense3"] is old.tensors["layer.dense3"]
    assert keep_unmoved(old, far).tensors["layer.dense3"] is far.tensors["layer.dense3"]
    for name, array in keep_unmoved(old, far).tensors.items():
        assert name == "layer.dense3" or array is old.tensors[name]


def test_an_input_keeps_no_bytes_that_moved() -> None:
    old = committed(STACK.name)
    nudged = old.tensors["x"].copy()
    nudged[0] = np.nextafter(nudged[0], np.float32(9))
    new = msgspec.structs.replace(old, tensors={**old.tensors, "x": nudged})
    assert keep_unmoved(old, new).tensors["x"] is nudged


def test_what_is_new_of_another_size_or_nan_is_not_kept() -> None:
    old = committed(STACK.name)
    longer = msgspec.structs.replace(old, tensors={**old.tensors, "d_x": np.ones(3), "d_new": np.ones(2)})
    assert keep_unmoved(old, longer).tensors["d_x"].size == 3
    assert keep_unmoved(old, longer).tensors["d_new"].size == 2
    broken = moved(old, "d_x", 0, np.nan)
    assert np.isnan(keep_unmoved(old, broken).tensors["d_x"][0])
    assert not np.isnan(keep_unmoved(broken, old).tensors["d_x"]).any()


def test_distance_counts_in_the_largest_number() -> None:
    a = np.array([1.0, -4.0])
    assert distance(a, a.copy(), 0.0) == 0.0
    assert distance(np.array([1.5, -4.0]), a, 0.0) == 0.125
    assert distance(np.array([1.5, -4.0]), a, 8.0) == 0.0625
    assert distance(np.array([1e-3]), np.zeros(1), 0.0) == 1e-3
    assert np.isnan(distance(np.array([np.nan, -4.0]), a, 0.0))
