"""Environments: what they hold wins whole, all else is the driver's, and nothing half is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from typing import TYPE_CHECKING

import msgspec
import pytest

from actconform.errors import NoEnvironmentError
from actconform.workers import environments
from actconform.workers.environments import environment, prune, stored_environments

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.workers.environments import Environment


def asked(made: Environment, code: str, **env: str) -> str:
    done = subprocess.run(
        [made.python, "-P", "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_an_environment_has_its_requirements_and_finds_all_else_at_the_driver(wheels: Path) -> None:
    said: list[str] = []
    made = environment(["wobble==1.0"], say=said.append)
    assert said == ["making an environment with wobble==1.0"]
    assert made.about is not None
    assert made.about.packages == {"wobble": "1.0"}
    assert made.folder.parent == wheels
    assert asked(made, "import wobble; print(wobble.__version__)") == "1.0"
    code = "import actconform, numpy; print(actconform.__file__, numpy.__file__)"
    assert (
        asked(made, code)
        == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    )
    points = (
        "from importlib.metadata import entry_points; print(sorted(p.name for p in entry_points(group='actconform')))"
    )
    assert "builtin" in asked(made, points)  # an editable install among them

    again = environment(["wobble==1.0"], say=said.append)
    assert again.folder == made.folder
    assert len(said) == 1, "it is kept"
    other = environment(["wobble==2.0", "steady"])
    assert other.folder != made.folder
    assert asked(other, "import wobble, steady; print(wobble.__version__, steady.__version__)") == "2.0 2.0"
    assert [one.folder for one in stored_environments()] == [other.folder, made.folder]


@pytest.mark.parametrize("harm", ["edited", "removed", "stamp", "foreign"])
def test_an_environment_that_is_not_as_it_was_made_is_made_anew(wheels: Path, harm: str) -> None:
    made = environment(["wobble==1.0"])
    module, stamp = made.packages / "wobble" / "__init__.py", made.folder / environments.ABOUT
    if harm == "edited":
        module.write_text("__version__ = '1.1'\n")
    elif harm == "removed":
        module.unlink()
    elif harm == "stamp":
        os.truncate(stamp, 40)
    else:
        stamp.write_bytes((environment(["wobble==2.0"]).folder / environments.ABOUT).read_bytes())
    said: list[str] = []
    again = environment(["wobble==1.0"], say=said.append)
    assert said == ["making an environment with wobble==1.0"]
    assert again.about == msgspec.structs.replace(made.about, files=again.about.files)
    assert asked(again, "import wobble; print(wobble.__version__)") == "1.0"
    environment(["wobble==1.0"], say=said.append)
    assert len(said) == 1, "and then it is kept, though it has run"


def test_a_requirement_of_this_machine_is_made_anew_when_its_file_changes(wheels: Path, tmp_path: Path) -> None:
    file = tmp_path / "wobble-1.0-py3-none-any.whl"
    shutil.copy(tmp_path / "wheels" / file.name, file)
    made = environment([f"wobble @ file://{file}"])
    assert environment([f"wobble @ file://{file}"]).folder == made.folder
    with zipfile.ZipFile(file, "a") as wheel:
        wheel.writestr("wobble/more.py", "")
    again = environment([f"wobble @ file://{file}"])
    assert again.folder != made.folder
    assert asked(again, "import wobble.more; print(wobble.__version__)") == "1.0"


def test_making_one_leaves_the_drivers_own_imports_as_they_were(wheels: Path) -> None:
    # Until Python 3.12, setuptools gives up its distutils where pip is sought, and then can't be imported itself.
    code = "from actconform.workers.environments import environment; environment(['wobble==1.0']); import setuptools"
    pytest.importorskip("setuptools")
    subprocess.run([sys.executable, "-c", code], check=True)
    assert wheels.is_dir()


def test_a_package_of_the_environment_is_not_mixed_with_the_drivers_of_that_name(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "driver" / "site-packages"
    (driver / "wobble").mkdir(parents=True)
    (driver / "wobble" / "__init__.py").write_text("__version__ = 'the driver’s'\n")
    (driver / "wobble" / "extra.py").write_text("leftover = 1\n")
    (driver / "besides.py").write_text("there = 'of the driver'\n")
    (tmp_path / "edited.py").write_text("there = 'editable'\n")
    (driver / "edited.pth").write_text(f"{tmp_path}\n")
    monkeypatch.syspath_prepend(str(driver))
    made = environment(["wobble==1.0"])
    code = "import wobble, besides, edited; print(wobble.__version__, besides.there, edited.there)"
    assert asked(made, code) == "1.0 of the driver editable"
    seek = "from importlib.util import find_spec; print(find_spec('wobble.extra'))"
    assert asked(made, seek) == "None"


def test_what_cannot_be_resolved_is_told_in_pips_words_and_leaves_nothing(wheels: Path) -> None:
    with pytest.raises(NoEnvironmentError, match=r"wobble==9 cannot be installed; the last lines were:\n.*") as error:
        environment(["wobble==9"])
    assert "No matching distribution found for wobble==9" in str(error.value)
    assert list(wheels.iterdir()) == []


def test_what_actconform_and_its_plugins_need_holds_there_too(wheels: Path) -> None:
    with pytest.raises(NoEnvironmentError, match=r"actconform==0.0.1 cannot be installed"):
        environment(["actconform==0.0.1"])
    lines = environments._constraints()
    assert any(line.startswith("numpy>=") for line in lines)
    assert not any("extra" in line or line.startswith("ruff") for line in lines)


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError("no space left on device")])
def test_an_interrupted_build_leaves_nothing(
    wheels: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def stop(command, failed):
        (wheels / "half").touch()
        next(wheels.glob("*.lock")).with_suffix("").mkdir()
        raise fault

    monkeypatch.setattr(environments, "called", stop)
    with pytest.raises((KeyboardInterrupt, NoEnvironmentError)):
        environment(["wobble==1.0"])
    assert [path.name for path in wheels.iterdir()] == ["half"]


def test_a_build_that_was_killed_is_made_anew(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(one, *_):
        (one.folder / "lib").mkdir(parents=True)
        (one.folder / "lib" / "python3.11").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environments, "_make", killed)
        with pytest.raises(KeyboardInterrupt):
            environment(["wobble==1.0"])
    (half,) = stored_environments()
    assert half.about is None
    again = environment(["wobble==1.0"])
    assert again.folder == half.folder
    assert asked(again, "import wobble; print(wobble.__version__)") == "1.0"


def test_of_two_builds_at_once_one_is_made_and_the_other_waits(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = [], []

    really = environments._make

    def make(one, *given):
        made.append(one.folder)
        time.sleep(0.5)
        really(one, *given)

    monkeypatch.setattr(environments, "_make", make)
    threads = [threading.Thread(target=environment, args=(["wobble==1.0"], None, said.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert any(line.startswith("waiting for another process") for line in said)


def test_prune_removes_what_was_not_used_and_what_is_not_whole(wheels: Path) -> None:
    now = time.time()
    for name, age in (("old", 40), ("new", 1)):
        (wheels / name).mkdir(parents=True)
        about = wheels / name / environments.ABOUT
        about.write_text('{"key": "", "requirements": ["wobble"], "python": "3", "packages": {}, "files": ""}')
        os.utime(about, (now - 86400 * age,) * 2)
    (wheels / "half").mkdir()
    assert {one.folder.name for one in prune(30 * 86400)} == {"old", "half"}
    assert [path.name for path in wheels.iterdir()] == ["new"]
    assert [one.folder.name for one in prune(-1)] == ["new"]


def interpreter(folder: Path, said: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{said}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("echo '[[3, 10, 13], \"cpython-310\"]'", "is Python 3.10.13: actconform needs 3.11 or newer"),
        ("echo '[[2, 7, 18], \"\"]'", "is Python 2.7.18: actconform needs 3.11 or newer"),
        ("echo '[[3, 99, 0], \"cpython-399\"]'", "is cpython-399 3.99.0, the driver is"),
        ("exit 1", "does not answer as an interpreter"),
        ("echo hello", "does not answer as an interpreter"),
    ],
)
def test_an_interpreter_that_cannot_share_the_drivers_packages_is_refused(
    tmp_path: Path, said: str, expected: str
) -> None:
    python = interpreter(tmp_path, said)
    with pytest.raises(NoEnvironmentError, match=expected) as error:
        environment(["wobble"], python)
    assert python in str(error.value)
    with pytest.raises(NoEnvironmentError, match="cannot be run"):
        environment(["wobble"], str(tmp_path / "gone"))


def test_of_a_conflict_it_is_told_who_requires_what(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "_constraints", lambda: {"wobble>=1.5": ["actconform-wobbly"]})
    with pytest.raises(NoEnvironmentError) as error:
        environment(["wobble==1.0"])
    assert str(error.value) == "wobble==1.0 cannot be installed: actconform-wobbly requires wobble>=1.5"


def test_a_conflict_deeper_down_is_told_once_a_package() -> None:
    said = """ERROR: Cannot install tf2onnx==1.16.1 because these package versions have conflicting dependencies.

The conflict is caused by:
    The user requested tf2onnx==1.16.1
    tf2onnx 1.16.1 depends on protobuf~=3.20
    onnx 1.23.2 depends on protobuf>=6.31.1
    onnx 1.22.0 depends on protobuf>=4.25.1
    The user requested (constraint) somewhere==9

To fix this you could try to:
1. loosen the range of package versions you've specified
"""
    assert environments._conflict(said) == (
        "a constraint of pip requires somewhere==9, tf2onnx 1.16.1 depends on protobuf~=3.20, onnx 1.23.2 depends on protobuf>=6.31.1"
    )
    assert environments._conflict("ERROR: No matching distribution found for wobble==9") == ""


def test_without_dependencies_the_requirements_come_alone(wheels: Path) -> None:
    with pytest.raises(NoEnvironmentError, match="No matching distribution found for nosuchthing"):
        environment(["leaning==1.0"])
    alone = environment(["leaning==1.0"], dependencies=False)
    assert alone.about is not None
    assert alone.about.packages == {"leaning": "1.0"}
