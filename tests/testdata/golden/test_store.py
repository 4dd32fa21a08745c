"""The goldens on disk: any byte that is not as the manifest says is an error that names file and digests."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.errors import GoldenError
from actconform.oracle import truth
from actconform.testdata.golden.store import digest, golden_dir, load, read_golden_tensor, read_manifest, strangers

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.testdata.golden.store import Manifest

COMMITTED = golden_dir()
MANIFEST = read_manifest(COMMITTED)
LARGEST_FOLDER = 30_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The goldens of relu and argmax, and the whole manifest."""
    for name in ("relu", "argmax"):
        shutil.copytree(COMMITTED / name, tmp_path / name)
    shutil.copy(COMMITTED / "manifest.json", tmp_path)
    return tmp_path


def rewrite(folder: Path, **changes: object) -> Manifest:
    """Change top-level fields of the manifest and read it again."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return read_manifest(folder)


def refused(folder: Path, name: str) -> str:
    """The message with which a tensor is refused; it names the file and the digest that is wanted."""
    with pytest.raises(GoldenError) as error:
        read_golden_tensor(folder, name, MANIFEST.files[name])
    assert str(folder / name) in str(error.value)
    assert MANIFEST.files[name].sha256 in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["relu/x.npy", "relu/y.npy", "argmax/y.npy"])
def test_every_flipped_bit_of_a_header_is_found(folder: Path, name: str):
    whole = (folder / name).read_bytes()
    for bit in range(8 * 128):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(flipped)
        assert "damaged golden" in refused(folder, name), bit


@pytest.mark.parametrize("place", [128, 4000, -1])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_of_the_data_is_found_and_both_digests_are_told(folder: Path, place: int, bit: int):
    whole = bytearray((folder / "relu/y.npy").read_bytes())
    whole[place] ^= 1 << bit
    (folder / "relu/y.npy").write_bytes(whole)
    message = refused(folder, "relu/y.npy")
    assert "damaged golden" in message
    assert hashlib.sha256(whole[128:]).hexdigest() in message


@pytest.mark.parametrize("kept", [0, 5, 9, 10, 100, 127, 128, 129, 1000, -1])
def test_a_file_that_was_cut_off_is_damaged(folder: Path, kept: int):
    whole = (folder / "argmax/x.npy").read_bytes()
    (folder / "argmax/x.npy").write_bytes(whole[:kept])
    assert "damaged golden" in refused(folder, "argmax/x.npy")


def test_a_file_with_something_behind_its_numbers_is_damaged(folder: Path):
    with (folder / "relu/y.npy").open("ab") as file:
        file.write(b"\0")
    assert "damaged golden" in refused(folder, "relu/y.npy")


@pytest.mark.parametrize(
    "write",
    [
        lambda path, array: path.write_bytes(b"PK\x03\x04 a zip, not an array"),
        lambda path, array: np.save(path, array.astype(object), allow_pickle=True),
        lambda path, array: np.save(path, array.astype(">f8")),
        lambda path, array: np.save(path, array.reshape(1, -1)),
        lambda path, array: np.save(path, array.astype(np.float32)),
        lambda path, array: path.write_bytes(array.tobytes()),
    ],
    ids=["zip", "pickle", "big-endian", "shape", "dtype", "bare"],
)
def test_a_file_of_another_kind_is_damaged(folder: Path, write):
    array = read_golden_tensor(folder, "relu/y.npy", MANIFEST.files["relu/y.npy"])
    write(folder / "relu/y.npy", array)
    assert "damaged golden" in refused(folder, "relu/y.npy")


def test_a_missing_file_is_named(folder: Path):
    (folder / "relu/y.npy").unlink()
    assert "missing golden" in refused(folder, "relu/y.npy")
    with pytest.raises(GoldenError, match=r"relu/y.npy: missing golden"):
        load(folder, MANIFEST, "relu")


def test_a_folder_in_place_of_a_file_is_named(folder: Path):
    (folder / "relu/y.npy").unlink()
    (folder / "relu/y.npy").mkdir()
    assert "cannot be read" in refused(folder, "relu/y.npy")


def test_an_extra_file_is_named_with_its_digest(folder: Path):
    whole = MANIFEST
    assert strangers(folder, whole) == []
    (folder / "relu" / "z.npy").write_bytes(b"more")
    (folder / ".hidden").write_bytes(b"")
    hidden, more = strangers(folder, whole)
    assert str(folder / "relu" / "z.npy") in more
    assert hashlib.sha256(b"more").hexdigest() in more
    assert str(folder / ".hidden") in hidden


def test_a_folder_without_a_manifest_says_how_to_write_one(folder: Path):
    (folder / "manifest.json").unlink()
    with pytest.raises(GoldenError, match=r"manifest.json: no such file.*golden mint"):
        read_manifest(folder)
    with pytest.raises(GoldenError, match="no such file"):
        read_manifest(folder / "nowhere")
    with pytest.raises(GoldenError, match="cannot be read"):
        read_manifest(folder / "relu" / "y.npy")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": "1"}', b'{"schema": 1}', b"null"])
def test_a_manifest_that_is_none_is_named(folder: Path, text: bytes):
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(GoldenError, match=r"manifest.json: not a manifest of goldens"):
        read_manifest(folder)


def test_a_manifest_of_a_newer_schema_says_so_even_where_nothing_else_fits(folder: Path):
    for changes in ({"schema": 2}, {"schema": 2, "files": ["other"], "subjects": 3}):
        with pytest.raises(GoldenError, match=r"manifest.json: schema 2, but this actconform reads schema 1"):
            rewrite(folder, **changes)


def test_a_subject_without_goldens_says_how_to_mint_them(folder: Path):
    with pytest.raises(GoldenError, match=r"no goldens for 'cube'.*golden mint cube"):
        load(folder, MANIFEST, "cube")


def test_draws_that_do_not_add_up_to_the_files_are_an_error(folder: Path):
    subjects = json.loads((folder / "manifest.json").read_text())["subjects"]
    subjects["relu"]["draws"][0]["shapes"]["y"][0] += 1
    with pytest.raises(GoldenError, match=r"manifest.json: the draws of 'relu' do not add up"):
        load(folder, rewrite(folder, subjects=subjects), "relu")
    del subjects["relu"]["draws"][0]["shapes"]["y"]
    with pytest.raises(GoldenError, match="do not add up"):
        load(folder, rewrite(folder, subjects=subjects), "relu")
    subjects["relu"]["draws"][0]["shapes"] = {"z": [3]}
    with pytest.raises(GoldenError, match="do not add up"):
        load(folder, rewrite(folder, subjects=subjects), "relu")


def test_a_digest_is_that_of_the_bytes_in_c_order_little_endian():
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    wanted = hashlib.sha256(b"".join(np.float64(n).tobytes() for n in range(6))).hexdigest()
    assert digest(array) == digest(np.asfortranarray(array)) == digest(array.astype(">f8")) == wanted
    assert digest(array.T) != wanted


def test_tensors_are_the_numbers_of_the_file_and_cannot_be_written():
    for name, entry in MANIFEST.files.items():
        if name.startswith(("relu/", "softmax/", "argmax/")):
            array = read_golden_tensor(COMMITTED, name, entry)
            plain = np.load(COMMITTED / name, allow_pickle=False)
            assert array.dtype == plain.dtype
            assert array.tobytes() == plain.tobytes()
            assert not array.flags.writeable


@pytest.mark.parametrize("name", ["relu", "softmax-axis1", "prelu", "argmax"])
def test_splitting_hands_out_every_number_once_in_its_shape(name: str):
    golden = load(COMMITTED, MANIFEST, name)
    rest = {tensor: array.copy() for tensor, array in golden.tensors.items()}
    regimes = Counter()
    for (regime, tensors), draw in zip(golden.split(), golden.draws, strict=True):
        regimes[regime] += 1
        for tensor, array in tensors.items():
            assert array.shape == draw.shapes[tensor]
            assert array.tobytes() == rest[tensor][: array.size].tobytes()
            rest[tensor] = rest[tensor][array.size :]
    assert all(array.size == 0 for array in rest.values())
    assert regimes["special"] >= 1


def test_the_committed_folder_is_whole_small_and_has_every_subject():
    assert strangers(COMMITTED, MANIFEST) == []
    assert {one.name for one in (*UNARY, *ROWS, *networks(), *experiments())} == MANIFEST.subjects.keys()
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) < LARGEST_FOLDER
    for entry in MANIFEST.files.values():
        assert entry.dtype in ("<f4", "<f8", "<i8")
        assert entry.generator
        assert entry.precision
        assert entry.seed
    for kernel in UNARY:
        tables = MANIFEST.subjects[kernel.name].tables
        digests = [tables[dtype][aspect] for dtype in ("f16", "bf16") for aspect in ("value", "gradient")]
        assert all(len(bytes.fromhex(text)) == 32 for text in digests)
    assert all(not MANIFEST.subjects[one.name].tables for one in (*ROWS, *networks(), *experiments()))


@pytest.mark.parametrize("kernel", UNARY, ids=[kernel.name for kernel in UNARY])
def test_zeros_of_the_goldens_have_the_sign_of_the_formulas_in_float32(kernel):
    golden = load(COMMITTED, MANIFEST, kernel.name)
    x = {"x": golden.tensors["x"]}
    told = {"y": truth(kernel, x)["y"], "d_x": truth(kernel, x, {"y": np.ones(golden.tensors["x"].size)})["d_x"]}
    for name, numbers in told.items():
        with np.errstate(over="ignore"):
            formula, stored = numbers.astype(np.float32), golden.tensors[name].astype(np.float32)
        zero = stored == 0
        assert np.array_equal(zero, formula == 0)
        assert np.array_equal(np.signbit(stored[zero]), np.signbit(formula[zero]))


def test_a_manifest_survives_being_written_and_read():
    assert msgspec.json.decode(msgspec.json.encode(MANIFEST), type=type(MANIFEST)) == MANIFEST
