"""Movement between two folders of goldens: told in ULP, and nothing told where nothing moved."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from actconform.errors import GoldenError
from actconform.testdata.golden.diff import diff
from actconform.testdata.golden.store import digest, golden_dir, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("relu", "argmax")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal folders with the goldens of relu and argmax alone."""
    whole = read_manifest(golden_dir())
    small = msgspec.structs.replace(
        whole,
        files={name: entry for name, entry in whole.files.items() if name.startswith(tuple(f"{n}/" for n in NAMES))},
        subjects={name: whole.subjects[name] for name in NAMES},
    )
    for place in (tmp_path / "old", tmp_path / "new"):
        for name in NAMES:
            shutil.copytree(golden_dir() / name, place / name)
        (place / "manifest.json").write_bytes(msgspec.json.encode(small))
    return tmp_path / "old", tmp_path / "new"


def change(folder: Path, name: str, array: np.ndarray) -> None:
    """Write another tensor, and its entry into the manifest."""
    np.save(folder / name, array)
    manifest = read_manifest(folder)
    entry = msgspec.structs.replace(
        manifest.files[name], sha256=digest(array), dtype=array.dtype.str, shape=array.shape
    )
    manifest.files[name] = entry
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def relu_value(folder: Path) -> np.ndarray:
    return np.load(folder / "relu/y.npy")


def test_equal_folders_have_no_difference(folders):
    assert diff(*folders) == []


@pytest.mark.parametrize("steps", [1, 3])
def test_a_moved_number_is_counted_in_units_of_the_last_place(folders, steps: int):
    old, new = folders
    array = relu_value(new)
    place = int(np.flatnonzero(array == 1.0)[0])
    for _ in range(steps):
        array[place] = np.nextafter(array[place], np.inf)
    change(new, "relu/y.npy", array)
    assert diff(old, new) == [f"relu/y.npy: 1 of {array.size:,} numbers moved, at most {steps} ULP"]


def test_inputs_are_counted_in_units_of_float32(folders):
    old, new = folders
    array = np.load(new / "relu/x.npy")
    array[:2] = np.nextafter(array[:2], np.float32(np.inf))
    change(new, "relu/x.npy", array)
    assert diff(old, new) == [f"relu/x.npy: 2 of {array.size:,} numbers moved, at most 1 ULP"]


@pytest.mark.parametrize(("before", "after"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, np.inf)])
def test_a_number_that_became_nan_or_infinite_changed_its_class(folders, before: float, after: float):
    old, new = folders
    for folder, number in ((old, before), (new, after)):
        array = relu_value(folder)
        array[7] = number
        change(folder, "relu/y.npy", array)
    assert diff(old, new) == [f"relu/y.npy: 1 of {array.size:,} numbers moved, class changed"]


def test_minus_zero_is_not_zero_and_nan_is_nan(folders):
    old, new = folders
    array = relu_value(new)
    assert np.isnan(array).any()
    array[np.flatnonzero(array == 0)[0]] *= -1
    change(new, "relu/y.npy", array)
    assert diff(old, new) == [f"relu/y.npy: 1 of {array.size:,} numbers moved, only the sign of zero"]


def test_whole_numbers_shapes_and_types_are_compared(folders):
    old, new = folders
    index = np.load(new / "argmax/y.npy")
    index[0] += 1
    change(new, "argmax/y.npy", index)
    change(new, "relu/y.npy", relu_value(new)[:-1])
    change(new, "relu/x.npy", np.load(new / "relu/x.npy").astype(np.float64))
    whole, types, shapes = diff(old, new)
    assert whole == f"argmax/y.npy: 1 of {index.size} numbers differ"
    assert types.startswith("relu/x.npy: <f4 [")
    assert "became <f8 [" in types
    assert shapes.startswith("relu/y.npy: <f8 [")


def test_tensors_that_came_or_went_and_layouts_and_tables_are_told(folders):
    old, new = folders
    manifest = read_manifest(new)
    del manifest.files["argmax/y.npy"]
    manifest.files["relu/z.npy"] = manifest.files["relu/y.npy"]
    subject = manifest.subjects["relu"]
    manifest.subjects["relu"] = msgspec.structs.replace(subject, draws=subject.draws[1:], tables={})
    (new / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    assert diff(old, new) == [
        "argmax/y.npy: gone",
        "relu/z.npy: new",
        "relu: its draws are laid out otherwise",
        "relu: its 16-bit tables differ",
    ]


def test_a_damaged_folder_is_an_error_and_no_movement(folders):
    old, new = folders
    (new / "relu/y.npy").write_bytes((new / "relu/y.npy").read_bytes()[:-1])
    with pytest.raises(GoldenError, match=r"new/relu/y.npy: damaged golden"):
        diff(old, new)
    with pytest.raises(GoldenError, match="no such file"):
        diff(old, new / "nowhere")
