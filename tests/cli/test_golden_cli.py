"""Damaged goldens on the command line: `run` refuses them before it starts anything, `golden verify` tells all of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from missing_package import take_away

from actconform.catalog.kernels import UNARY
from actconform.exhaustive.statistics import BinadeErrors, SweepStatistics, WorstError
from actconform.sweep.journal import SweepIdentity, SweepJournal, SweptChunk, definition_of
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.types import Case

ACTCONFORM = Path(sys.executable).with_name("actconform")
WANTED = read_manifest(golden_dir()).files["relu/y.npy"].sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of all goldens."""
    return shutil.copytree(golden_dir(), tmp_path / "golden")


@pytest.fixture
def call(cli, monkeypatch, tmp_path: Path):
    """The command line; a run reads the goldens of the temporary folder."""
    monkeypatch.setattr("actconform.run.scheduler.golden_dir", lambda: tmp_path / "golden")
    monkeypatch.setattr("actconform.cli.run_.run", lambda *_: pytest.fail("a run on damaged goldens was started"))
    return cli


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def flip_data(folder: Path) -> tuple[str, ...]:
    flip(folder / "relu/y.npy", 5000)
    seen = hashlib.sha256((folder / "relu/y.npy").read_bytes()[128:]).hexdigest()
    return "relu/y.npy: damaged golden", seen, WANTED


def flip_header(folder: Path) -> tuple[str, ...]:
    flip(folder / "relu/y.npy", 30)
    return "relu/y.npy: damaged golden", WANTED


def remove(folder: Path) -> tuple[str, ...]:
    (folder / "relu/y.npy").unlink()
    return "relu/y.npy: missing golden", WANTED


def cut(folder: Path) -> tuple[str, ...]:
    path = folder / "relu/y.npy"
    path.write_bytes(path.read_bytes()[:1000])
    return "relu/y.npy: damaged golden", hashlib.sha256(path.read_bytes()[128:]).hexdigest(), WANTED


def add(folder: Path) -> tuple[str, ...]:
    (folder / "relu/z.npy").write_bytes(b"more")
    return "relu/z.npy: extra file", hashlib.sha256(b"more").hexdigest()


def add_elsewhere(folder: Path) -> tuple[str, ...]:
    (folder / "notes.txt").write_bytes(b"")
    return "notes.txt: extra file", hashlib.sha256(b"").hexdigest()


def lose_manifest(folder: Path) -> tuple[str, ...]:
    (folder / "manifest.json").unlink()
    return "manifest.json: no such file", "golden mint"


def break_manifest(folder: Path) -> tuple[str, ...]:
    (folder / "manifest.json").write_text("{")
    return ("manifest.json: not a manifest of goldens",)


def newer_manifest(folder: Path) -> tuple[str, ...]:
    (folder / "manifest.json").write_text('{"schema": 2, "tensors": []}')
    return "manifest.json: schema 2", "reads schema 1"


def lose_subject(folder: Path) -> tuple[str, ...]:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["subjects"]["relu"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return "no goldens for 'relu'", "golden mint relu"


def break_layout(folder: Path) -> tuple[str, ...]:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["subjects"]["relu"]["draws"][0]["shapes"]["x"] = [5]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return ("manifest.json: the draws of 'relu' do not add up",)


def forge(folder: Path) -> tuple[str, ...]:
    array = np.load(folder / "relu/y.npy")
    array[0] = np.nan
    np.save(folder / "relu/y.npy", array)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace(WANTED, hashlib.sha256(array.tobytes()).hexdigest()))
    return "golden relu/y.npy: formula gives", "where the golden holds"


DAMAGES = [
    *(flip_data, flip_header, remove, cut, add, add_elsewhere),
    *(lose_manifest, break_manifest, newer_manifest, lose_subject, break_layout, forge),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_run_refuses_damaged_goldens_with_one_line_and_code_2(damage, folder: Path, call):
    expected = damage(folder)
    code, output, message = call("run", "relu/value/f32/torch")
    assert (code, output) == (2, "")
    assert len(message.splitlines()) == 1
    assert message.startswith("error: ")
    for words in expected:
        assert words in message
    assert not (folder.parent / "conform-out").exists()


def test_a_run_refuses_damaged_goldens_of_an_experiment(folder: Path, call):
    flip(folder / "noise-relu/losses.npy", 140)
    code, output, message = call("run", "noise-relu/training/f32/torch")
    assert (code, output) == (2, "")
    assert "noise-relu/losses.npy: damaged golden" in message


def test_verify_counts_experiments(call):
    code, output, _ = call("golden", "verify", "--fast", "blobs-sgd", "relu")
    assert code == 0
    assert output.startswith(f"1 kernel, 0 models, 1 experiment, {len(read_manifest(golden_dir()).files):,} files")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_verify_names_the_damage_and_does_not_exit_with_0(damage, folder: Path, call):
    expected = damage(folder)
    code, output, message = call("golden", "verify", "--fast", "--folder", str(folder), "relu")
    assert code in (1, 2)
    assert "Traceback" not in output + message
    line = message if code == 2 else output.splitlines()[0]
    for words in expected:
        assert words in line
    if code == 1:
        assert output.splitlines()[-1] == f"1 problem in {folder}"


def test_the_real_command_refuses_a_flipped_bit(folder: Path):
    expected = flip_data(folder)
    command = [ACTCONFORM, "golden", "verify", "--fast", "--folder", folder, "relu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    for words in expected:
        assert words in done.stdout


def test_whole_goldens_are_verified(call, folder: Path):
    code, output, message = call("golden", "verify", "--fast", "--folder", str(folder))
    assert (code, message) == (0, "")
    assert "kernels" in output
    assert "verified; worst formula error" in output
    assert "tables" not in output


def test_one_kernel_is_verified_with_its_tables_and_no_others_are_claimed(call, folder: Path):
    pytest.importorskip("flint")
    code, output, _ = call("golden", "verify", "--folder", str(folder), "relu", "softmax")
    assert code == 0
    assert output.startswith("2 kernels, ")
    assert ", 4 tables of 65,536 patterns: verified" in output


def test_minting_tells_what_it_wrote_and_diff_finds_nothing(call, folder: Path, tmp_path: Path):
    pytest.importorskip("flint")
    code, output, _ = call("golden", "mint", "--folder", str(tmp_path / "new"), "hardmax")
    assert code == 0
    assert output.splitlines() == ["minted hardmax", f"2 files of 1 subject in {tmp_path / 'new'}"]
    code, output, _ = call("golden", "diff", str(tmp_path / "new"), str(tmp_path / "new"))
    assert (code, output) == (0, "no difference\n")
    code, output, _ = call("golden", "diff", str(folder), str(tmp_path / "new"))
    assert code == 1
    assert "relu/y.npy: gone" in output
    assert "hardmax" not in output


@pytest.mark.parametrize("words", [("mint", "--folder", "new", "relu"), ("verify", "relu")])
def test_without_python_flint_the_message_says_what_to_install(words: tuple[str, ...], call, monkeypatch):
    take_away(monkeypatch, "flint")
    code, output, message = call("golden", *words)
    assert (code, output) == (2, "")
    assert 'pip install "actconform[golden]"' in message
    assert len(message.splitlines()) == 1


def journal(place: Path, kernel: str = "sigmoid", definition: str = "") -> Path:
    """Write the journal of a sweep of one chunk, with two hard inputs and a worst one."""
    identity = SweepIdentity(
        actconform="1.0",
        case=Case(kernel, "value", "f32", "torch"),
        extent="quick",
        definition=definition or definition_of(next(each for each in UNARY if each.name == "sigmoid")),
        provider="actconform-torch 1.0",
        facts={},
    )
    worst = WorstError(3.0, "0x3fa00001")
    statistics = SweepStatistics(inputs=7, binades=(BinadeErrors(3, worst, worst),), hard=("0x3f123456", "0x3e654321"))
    with SweepJournal(place, identity, resume=False) as written:
        written.add(SweptChunk(chunk=3, sha256="a" * 64, statistics=statistics, seconds=1.0))
    return written.path


def test_hard_inputs_of_a_sweep_are_added_on_demand(call, folder: Path, tmp_path: Path):
    pytest.importorskip("flint")
    words = ("golden", "add-hard", str(journal(tmp_path)), "--folder", str(folder))
    assert call(*words)[:2] == (0, f"3 points added to the golden of sigmoid in {folder}, 0 of 3 were there\n")
    assert call(*words)[:2] == (0, f"0 points added to the golden of sigmoid in {folder}, 3 of 3 were there\n")
    *_, (regime, tensors) = load(folder, read_manifest(folder), "sigmoid").split()
    assert regime == "swept"
    assert tensors["x"].view(np.uint32).tolist() == [0x3E654321, 0x3F123456, 0x3FA00001]
    code, output, _ = call("golden", "verify", "sigmoid", "--fast", "--folder", str(folder))
    assert (code, "verified" in output) == (0, True)


@pytest.mark.parametrize(
    ("kernel", "definition", "words"),
    [
        ("nonsense", "", "is of kernel 'nonsense', and no kernel of that name is installed"),
        ("sigmoid", "e" * 64, "is of another definition of sigmoid than the installed one; sweep it again"),
        ("softmax", "", "is of another definition of softmax"),
    ],
)
def test_a_journal_of_another_kernel_adds_nothing(kernel, definition, words, call, folder: Path, tmp_path: Path):
    before = (folder / "manifest.json").read_bytes()
    code, output, message = call(
        "golden", "add-hard", str(journal(tmp_path, kernel, definition)), "--folder", str(folder)
    )
    assert (code, output) == (2, "")
    assert words in message
    assert (folder / "manifest.json").read_bytes() == before


def test_what_is_no_journal_is_refused(call, folder: Path, tmp_path: Path):
    (tmp_path / "text").write_text("hello")
    for name in ("text", "nothing"):
        code, _, message = call("golden", "add-hard", str(tmp_path / name), "--folder", str(folder))
        assert code == 2
        assert str(tmp_path / name) in message
