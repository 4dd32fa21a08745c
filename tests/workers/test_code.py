"""What code a process runs: an edited file or another version of a package changes the digest, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from actconform.workers.code import code_digest, packages, tree_digest

ASK = """
import importlib, sys
from actconform.workers.code import code_digest
for name in sys.argv[1:]:
    importlib.import_module(name)
print(code_digest(sys.argv[1:]))
"""


def digest(folder: Path, *modules: str) -> str:
    """Return the digest of a process of its own that finds `folder` and imports `modules`."""
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", ASK, *modules],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{folder}:{source}"},
    )
    return done.stdout.strip()


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder with a plugin that is a package, another that is one file, and a package that both may import."""
    for name in ("mine/__init__.py", "mine/exporter.py", "mine/later.py", "mine/table.json", "single.py", "beside.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "mine/table.json").write_text("{}")
    (tmp_path / "mine-1.0.dist-info").mkdir()
    (tmp_path / "mine-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    return tmp_path


def test_the_same_code_has_the_same_digest_compiled_or_not(plugin: Path):
    first = digest(plugin, "mine", "single")
    assert len(first) == 64
    (plugin / "mine/__pycache__").mkdir(exist_ok=True)
    (plugin / "mine/__pycache__/old.pyc").write_bytes(b"anything")
    assert digest(plugin, "mine", "single") == first


@pytest.mark.parametrize(
    "edited", ["mine/__init__.py", "mine/exporter.py", "mine/later.py", "mine/table.json", "single.py", "beside.py"]
)
def test_an_edited_file_of_a_plugin_is_other_code_imported_or_not(edited: str, plugin: Path):
    before = digest(plugin, "mine", "single")
    with (plugin / edited).open("a") as file:
        file.write(" ")
    assert digest(plugin, "mine", "single") != before


FINDER = """
import importlib.util, sys
class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "mapped":
            return importlib.util.spec_from_file_location(name, {folder!r} + "/__init__.py", submodule_search_locations=[{folder!r}])
sys.meta_path.append(Editable)
"""


@pytest.mark.parametrize("edited", ["later.py", "build/made.py"])
def test_a_package_that_a_finder_of_its_own_brings_counts_whole(edited: str, plugin: Path, tmp_path: Path):
    folder = tmp_path / "away" / "of another name"
    for name in ("__init__.py", "later.py", "build/made.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (plugin / "sitecustomize.py").write_text(FINDER.format(folder=str(folder)))
    before = digest(plugin, "mapped")
    (folder / edited).write_text("RATE = 2")
    assert digest(plugin, "mapped") != before


def test_a_program_counts(tmp_path: Path):
    before = code_digest([], [tmp_path / "program"])
    (tmp_path / "program").write_text("echo 1")
    first = code_digest([], [tmp_path / "program"])
    (tmp_path / "program").write_text("echo 2")
    assert len({before, first, code_digest([], [tmp_path / "program"])}) == 3


def test_what_a_plugin_imports_from_elsewhere_counts(plugin: Path, tmp_path: Path):
    (plugin / "mine/__init__.py").write_text("import helper.core\n")
    (tmp_path / "helper").mkdir()
    (tmp_path / "helper/core.py").write_text("RATE = 1\n")
    before = digest(plugin, "mine")
    (tmp_path / "helper/core.py").write_text("RATE = 2\n")
    assert digest(plugin, "mine") != before


def test_another_version_of_any_package_is_other_code(plugin: Path):
    before = digest(plugin, "mine")
    (plugin / "mine-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.1\n")
    assert digest(plugin, "mine") != before


def test_packages_are_named_with_versions(plugin: Path):
    assert packages([str(plugin)]) == ["mine==1.0"]
    assert any(line.startswith("numpy==") for line in packages())


def test_a_tree_is_known_by_its_names_and_bytes(plugin: Path):
    before = tree_digest(plugin / "mine")
    (plugin / "mine/later.py").rename(plugin / "mine/latest.py")
    assert tree_digest(plugin / "mine") != before
    assert tree_digest(plugin / "single.py") != tree_digest(plugin / "beside.py")
