"""Why a package cannot be imported, said in its own words: packages made for it, imported in earnest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from actconform.errors import Unavailable
from actconform.plugin.import_failure import imported

if TYPE_CHECKING:
    from pathlib import Path

INSTALL = "pip install oddlib"
ANEW = "pip install --force-reinstall --no-deps oddlib==2.5.0"  # pip leaves a distribution alone that is there


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "oddlib"]:
        del sys.modules[name]


def package(site: Path, code: str, *requires: str) -> None:
    (site / "oddlib.py").write_text(code)
    distribution(site, "oddlib", "2.5.0", *requires)


def distribution(site: Path, name: str, version: str, *requires: str) -> None:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (folder / "METADATA").write_text("\n".join((*lines, *(f"Requires-Dist: {text}" for text in requires))) + "\n")


def reason(**options: object) -> str:
    with pytest.raises(Unavailable) as refusal:
        imported("oddlib", INSTALL, **options)
    return str(refusal.value)


def test_what_imports_is_returned_and_its_warnings_are_heard(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package(site, "import sys\nsys.stderr.write('beware')\nanswer = 42\n")
    assert imported("oddlib", INSTALL).answer == 42
    assert capsys.readouterr().err == "beware"


def test_what_is_not_there_is_not_installed(site: Path) -> None:
    assert reason() == "oddlib is not installed: pip install oddlib"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import nosuchdependency",
            "oddlib 2.5.0 needs nosuchdependency, which is not installed: install the package that has it",
        ),
        (
            "raise ImportError('libodd.so.3: cannot open shared object file: No such file or directory')",
            "oddlib 2.5.0 needs the shared library libodd.so.3, which is not there",
        ),
        (
            "raise OSError('/opt/odd/libodd.so: cannot open shared object file: No such file or directory')",
            "oddlib 2.5.0 needs the shared library /opt/odd/libodd.so, which is not there",
        ),
        (
            "import ctypes; ctypes.CDLL('libnosuchlibrary.so.3')",
            "oddlib 2.5.0 needs the shared library libnosuchlibrary.so.3, which is not there",
        ),
        (
            "raise ImportError('libodd.so: undefined symbol: _Zodd')",
            "oddlib 2.5.0 is installed, but cannot be imported: libodd.so: undefined symbol: _Zodd",
        ),
        (
            "from math import nosuchname",
            "oddlib 2.5.0 is installed, but cannot be imported: cannot import name 'nosuchname' from 'math'",
        ),
        (
            "raise TypeError('Descriptors cannot be created directly.\\nmore')",
            "oddlib 2.5.0 is installed, but cannot be imported: TypeError: Descriptors cannot be created directly.",
        ),
        ("raise RuntimeError", "oddlib 2.5.0 is installed, but cannot be imported: RuntimeError: no reason given"),
        (
            "import numpy.core._multiarray_umath as umath; umath._ARRAY_API",  # as a wheel of numpy 1 does
            f"oddlib 2.5.0 was built for numpy 1 and cannot be imported with numpy {np.__version__}: take a release",
        ),
        (
            "raise AttributeError('_ARRAY_API not found')",  # what pybind11 makes of it
            f"oddlib 2.5.0 was built for numpy 1 and cannot be imported with numpy {np.__version__}: take a release",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_installed_and_broken_is_never_called_missing(site: Path, code: str, words: str) -> None:
    package(site, code)
    assert reason().startswith(words)
    assert "oddlib is not installed" not in reason()


def test_a_package_that_lacks_a_part_of_itself_is_incomplete(site: Path) -> None:
    (site / "oddlib").mkdir()
    (site / "oddlib" / "__init__.py").write_text("import oddlib.core")
    distribution(site, "oddlib", "2.5.0")
    assert reason() == f"oddlib 2.5.0 is incomplete, it lacks oddlib.core: install it anew: {ANEW}"


def test_a_distribution_without_its_module_is_incomplete(site: Path) -> None:
    """As where two packages write the same files and one of them is uninstalled."""
    distribution(site, "oddlib", "2.5.0+cpu")  # no index has the local part
    assert reason() == f"oddlib 2.5.0+cpu is incomplete, it lacks oddlib: install it anew: {ANEW}"


@pytest.mark.parametrize(
    "code", ["import nosuch.core", "raise ImportError('libodd.so.3: cannot open shared object file: No such file')"]
)
def test_what_is_missing_is_named_as_pip_calls_it(site: Path, code: str) -> None:
    package(site, code, "oddpart[fast]", "other; extra == 'docs'", "gone; python_version < '3'", "no standard !!")
    absent = "absent-here>=6,<8; python_version > '3'"
    distribution(site, "oddpart", "1.0", absent, "quick; extra == 'fast'", "oddlib")
    assert reason().endswith(": pip install 'absent-here<8,>=6' quick")


def test_memory_that_ends_is_no_matter_of_the_package(site: Path) -> None:
    package(site, "raise MemoryError")
    with pytest.raises(MemoryError):
        imported("oddlib", INSTALL)


@pytest.mark.parametrize(
    ("requirement", "old"),
    [("oddlib>=2.6", True), ('oddlib>=2.6 ; extra == "cpu"', True), ("oddlib>=2.5", False), ("oddlib", False)],
)
def test_the_plugins_requirement_says_what_is_too_old_before_it_is_imported(
    site: Path, requirement: str, old: bool
) -> None:
    package(site, "answer = 42\n" if not old else "raise ImportError('it would not import either')")
    distribution(site, "oddplugin", "1.0", requirement)
    if old:
        expected = "oddlib 2.5.0 is too old: oddplugin needs oddlib 2.6 or newer: pip install 'oddlib>=2.6'"
        assert reason(plugin="oddplugin") == expected
    else:
        assert imported("oddlib", INSTALL, plugin="oddplugin").answer == 42


def test_one_of_several_distributions_may_hold_it(site: Path) -> None:
    (site / "oddlib.py").write_text("raise ImportError('no')")
    distribution(site, "oddlib_gpu", "3.1")
    said = reason(plugin="nosuchplugin", packages=("oddlib", "oddlib-gpu"))
    assert said == "oddlib-gpu 3.1 is installed, but cannot be imported: no"
    distribution(site, "oddplugin", "1.0", "oddlib>=2", "oddlib-gpu>=4")
    said = reason(plugin="oddplugin", packages=("oddlib", "oddlib-gpu"))
    assert said.endswith("needs oddlib-gpu 4 or newer: pip install 'oddlib-gpu>=4'"), "never one beside the other"
