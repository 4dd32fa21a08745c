"""Goldens of a plugin lie in the folder that it names: minted there, found there by every verb, and those of the package stay as they are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from actconform.plugin.loader import load_plugins
from actconform.testdata.golden.store import golden_dir, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = """
from pathlib import Path
from actconform import hookimpl
from actconform.catalog.models.builder import describe, layer
from actconform.types.model import Input

class plugin:
    @staticmethod
    @hookimpl
    def actconform_models():
        drawn = [Input(name="x", shape=(4,), draw="normal"), Input(name="target", shape=(2,), draw="normal", role="target")]
        layers = [layer("y", "dense", "x", units=2), layer("loss", "mean-squared-error", "y", "target")]
        return [describe("own-net", "a plugin's", drawn, layers, output="y", batch=3)]

    @staticmethod
    @hookimpl
    def actconform_goldens():
        return Path(__file__).parent / "own golden"
"""


@pytest.fixture
def own(install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder that a plugin with one model names for its goldens; nothing is there yet."""
    install(own="plugin_with_goldens:plugin")
    (tmp_path / "site" / "plugin_with_goldens.py").write_text(PLUGIN)
    yield tmp_path / "site" / "own golden"
    sys.modules.pop("plugin_with_goldens", None)


def test_a_plugins_goldens_are_minted_into_its_folder_and_found_there(own: Path, cli):
    before = (golden_dir() / "manifest.json").read_bytes()
    route = "own-net/value/f32/authored+ort-cpu"
    without = cli("run", route)
    assert without.code == 1
    assert "write them with `actconform golden mint own-net`" in without.out
    assert "1 problem in" in cli("golden", "verify", "--fast", "own-net").out

    said = cli("golden", "mint", "own-net")
    assert (said.code, said.err) == (0, "")
    assert f"of 1 subject in {own}" in said.out
    assert set(read_manifest(own).subjects) == {"own-net"}
    assert not (golden_dir() / "own-net").exists()
    assert (golden_dir() / "manifest.json").read_bytes() == before

    assert cli("golden", "verify", "--fast", "own-net").code == 0
    ran = cli("run", route)
    assert (ran.code, "1 pass" in ran.out) == (0, True), ran.out


def test_damage_and_strangers_in_a_plugins_folder_are_named(own: Path, cli):
    cli("golden", "mint", "own-net")
    (own / "notes.txt").write_text("mine")
    said = cli("run", "own-net/value/f32/authored+ort-cpu")
    assert said.code == 2
    assert "notes.txt: extra file" in said.err
    (own / "notes.txt").unlink()
    path = own / "own-net" / "layer.y.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "layer.y.npy: damaged golden" in cli("golden", "verify", "--fast", "own-net").out
    said = cli("run", "own-net/value/f32/authored+ort-cpu")
    assert said.code == 2
    assert "layer.y.npy: damaged golden" in said.err


def test_a_folder_that_is_named_on_the_command_line_takes_all(own: Path, cli, tmp_path: Path):
    cli("golden", "mint", "own-net", "--folder", "elsewhere")
    assert (tmp_path / "elsewhere/own-net/layer.y.npy").exists()
    assert not own.exists()


def test_the_catalog_knows_whose_goldens_lie_where(own: Path):
    assert load_plugins().goldens == {"own-net": own}


def test_a_subject_whose_truth_cannot_be_computed_is_named(install, cli, tmp_path: Path):
    install(lone="plugin_without_formula:plugin")
    (tmp_path / "site" / "plugin_without_formula.py").write_text(
        "from actconform import Kernel, hookimpl\nclass plugin:\n    @staticmethod\n    @hookimpl\n"
        "    def actconform_kernels():\n        return [Kernel(name='lone', definition='?', source='')]\n"
    )
    try:
        said = cli("golden", "mint", "lone", "--folder", "minted")
    finally:
        sys.modules.pop("plugin_without_formula", None)
    assert said.code == 2
    assert "lone: its truth cannot be computed: KeyError: kernel lone has no float64 formula: register one" in said.err
    assert "fix what is registered for it" in said.err
    assert not (tmp_path / "minted" / "manifest.json").exists()
