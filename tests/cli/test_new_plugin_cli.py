"""`actconform new-plugin`: what it writes, and what it refuses to write. docs/write-a-plugin.md installs and checks the result."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from actconform.plugin.hookspecs import INTERFACE
from actconform.plugin.loader import load_plugins
from actconform.verdict.causes.register import read_register

FILES = {
    "README.md",
    "pyproject.toml",
    "src/actconform_my_lib/__init__.py",
    "src/actconform_my_lib/backend.py",
    "src/actconform_my_lib/causes.toml",
    "tests/test_contract.py",
}
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def files(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["framework", "runtime"])
def test_a_package_is_written_whole(cli, tmp_path, monkeypatch, kind):
    said = cli("new-plugin", "my-lib", "--kind", kind)
    assert said.code == 0, said.err
    folder = tmp_path / "actconform-my-lib"
    written = files(folder)
    assert set(written) == FILES
    assert not [path for path, text in written.items() if "$" in text]
    assert said.out.splitlines()[-1] == "next: pip install -e actconform-my-lib; actconform check-plugin my-lib"

    project = tomllib.loads(written["pyproject.toml"])["project"]
    assert project["name"] == "actconform-my-lib"
    assert project["entry-points"]["actconform"] == {"my-lib": "actconform_my_lib:plugin"}
    causes = written["src/actconform_my_lib/causes.toml"]
    assert read_register(causes, "").causes == ()
    example = read_register(causes.replace("# ", "").split("explains the findings.\n")[1].replace("#\n", ""), "")
    assert (len(example.libraries), len(example.causes)) == (1, 1)

    monkeypatch.syspath_prepend(str(folder / "src"))
    import actconform_my_lib

    catalog = load_plugins([actconform_my_lib.plugin], entry_points=[])
    for name in [name for name in sys.modules if name.startswith("actconform_my_lib")]:
        del sys.modules[name]
    assert catalog.broken == ()
    assert catalog.backends["my-lib"].kind == kind
    assert actconform_my_lib.plugin.actconform_interface == INTERFACE


@pytest.mark.parametrize("kind", ["framework", "runtime"])
def test_what_is_written_is_in_order(cli, tmp_path, kind):
    cli("new-plugin", "my-lib", "--kind", kind)
    folder = tmp_path / "actconform-my-lib"
    command = [sys.executable, "-m", "ruff"]
    style = ["--config", "line-length = 120", "--isolated", "."]
    for verb in (["check", "--select", "E,F,W,I,D,UP,B,ANN", "--ignore", "D203,D213,D107"], ["format", "--check"]):
        done = subprocess.run([*command, *verb, *style], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    names = {
        node.name
        for node in ast.walk(ast.parse((folder / "src/actconform_my_lib/backend.py").read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert {"MyLibBackend", "MyLibProgram"} <= names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My Lib", "try 'my-lib'"),
        ("my_lib", "try 'my-lib'"),
        ("2nd", "try 'nd'"),
        ("my--lib", "try 'my-lib'"),
        ("actconform-mine", "try 'mine'"),
        ("my@lib", "wanted at most 40 lower case letters and digits"),
        ("../up", "try 'up'"),
        ("", "a backend cannot be called ''"),
        ("ö", "a backend cannot be called 'ö'"),
        ("a" * 41, "try 'aaaa"),
        ("all", "with --backend it means every backend"),
        ("authored", "it is the driver's own exporter"),
    ],
)
def test_a_bad_name_is_refused_with_a_better_one(cli, tmp_path, name, words):
    said = cli("new-plugin", name)
    assert said.code == 2
    assert words in said.err
    assert files(tmp_path) == {}


def test_a_name_that_something_installed_has_is_refused(cli, tmp_path, install):
    install(**{"stand-in": "stand_in:Plugin", "other": "stand_in:Broken"})
    said = cli("new-plugin", "no-device", "--out", "new")
    assert said.code == 2
    assert "'no-device' is taken by the backend no-device of actconform-stand-in 1.0: choose another name" in said.err
    said = cli("new-plugin", "other", "--out", "new")
    assert "'other' is taken by the plugin other (stand_in:Broken)" in said.err
    assert not (tmp_path / "new").exists()


def test_an_exporters_name_and_a_module_that_is_there_are_taken(cli, tmp_path, monkeypatch):
    (tmp_path / "actconform_mine.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "'mine' is taken by the module actconform_mine" in cli("new-plugin", "mine").err


def test_nothing_that_is_there_is_overwritten(cli, tmp_path):
    cli("new-plugin", "mine")
    before = files(tmp_path)
    said = cli("new-plugin", "mine", "--kind", "runtime")
    assert said.code == 2
    assert "actconform-mine exists already, and nothing was written: remove it, or name another --out" in said.err
    (tmp_path / "file").write_text("kept")
    assert "file exists already" in cli("new-plugin", "mine", "--out", "file").err
    assert files(tmp_path) == {**before, "file": "kept"}


def test_a_folder_that_cannot_be_made_is_told(cli, tmp_path):
    (tmp_path / "file").write_text("")
    said = cli("new-plugin", "mine", "--out", "file/below")
    assert said.code == 2
    assert "cannot be written: Not a directory; name another --out" in said.err
