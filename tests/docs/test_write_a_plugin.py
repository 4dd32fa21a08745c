"""docs/write-a-plugin.md is executed as it stands, without network, and its reference is the code's."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from documents import TOP, assert_shown, blocks

from actconform import Backend, Exporter, Program
from actconform.plugin import framework, hookspecs

DOCUMENT = TOP / "docs" / "write-a-plugin.md"
TEXT, BLOCKS = DOCUMENT.read_text(encoding="utf-8"), blocks(DOCUMENT)
BACKEND = "actconform-mine/src/actconform_mine/backend.py"


@pytest.fixture
def shell(tmp_path):
    """Run a command in a temporary folder, in an environment that has what this one has, and room of its own for one more package."""
    place = tmp_path / "venv"
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    own = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    (own / "what_is_here.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    command = place / "bin" / "actconform"
    command.write_text(f"#!{python}\nfrom actconform.cli import main\nmain()\n")
    command.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(place / "bin"), os.environ["PATH"]]),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as: no isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }

    def run(lines):
        done = subprocess.run(["bash", "-ec", lines], cwd=work, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = work
    return run


def test_from_an_empty_folder_to_a_green_column(shell):
    said = ""
    ran = 0
    for language, text in BLOCKS:
        if language == "sh":
            said = shell(text)
            ran += len(text.splitlines())
        elif language == "text":
            assert_shown(text, said)
        elif language == "python":
            with (shell.folder / BACKEND).open("a") as file:
                file.write(f"\n\n{text}")
    assert ran == 5
    assert "12 pass" in said


def of(name):
    (text,) = [block.text for block in BLOCKS if block.language == f"python {name}"]
    return {node.name: ast.unparse(node) for node in ast.parse(text).body}


def in_code(owner, names):
    """The signatures of functions as the code has them, without their bodies."""
    found = {}
    for name in names:
        (node,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(vars(owner)[name]))).body
        node.decorator_list, node.body = [], [ast.Expr(ast.Constant(...))]
        found[name] = ast.unparse(node)
    return found


def test_the_reference_of_hooks_is_the_specification():
    hooks = [name for name in vars(hookspecs) if name.startswith("actconform_")]
    assert of("hooks") == in_code(hookspecs, hooks)
    for hook in hooks:
        assert f"| `{hook}` | " in TEXT
    assert f"`actconform_interface`, {hookspecs.INTERFACE} today" in TEXT


@pytest.mark.parametrize("owner", [Backend, Program, Exporter])
def test_the_reference_of_classes_is_the_code(owner):
    methods = [name for name, value in vars(owner).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert of(owner.__name__) == in_code(owner, methods)


def test_the_reference_of_what_native_backends_share_is_the_code():
    own = {
        name: item for name, item in vars(framework).items() if getattr(item, "__module__", "") == framework.__name__
    }
    functions = [name for name, item in own.items() if inspect.isfunction(item) and not name.startswith("_")]
    assert of("framework") == in_code(framework, functions)
    for name in (name for name, item in own.items() if inspect.isclass(item)):
        assert f"`{name}`" in TEXT
