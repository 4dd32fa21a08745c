"""The built packages in empty environments, installed as a user does: `python -m benchmarks.installing dist`.

For each Python that runs here: an environment, `pip install` from the folder of built packages, a check of an ONNX file and a
run. Prints a table with the versions and the seconds of each step; exit code 1 where a step fails, 2 where no Python runs or
one that was named does not. With --keep the environments stay, with what the run printed, to look at what was installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

PYTHONS = ("python3.11", "python3.12", "python3.13")
RELEASES = "import platform; print(platform.python_version(), platform.system(), platform.machine())"
NO_PYTHONPATH = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ACTCONFORM"))}


class Step(NamedTuple):
    """A command of the installation, and what it is called in the table."""

    name: str
    command: list[str]


def main() -> int:
    """Install, check and run with each Python; print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.installing", description=__doc__)
    parser.add_argument("dist", type=Path, help="the folder of built packages")
    parser.add_argument("--install", action="append", help="a package to install, repeatable (actconform[ort])")
    parser.add_argument("--constraints", type=Path, help="versions to take, for pip (the newest)")
    parser.add_argument("--python", action="append", help="an interpreter (python3.11, python3.12, python3.13)")
    parser.add_argument("--pattern", default="gelu-*", help="the cases of the run (gelu-*)")
    parser.add_argument("--keep", type=Path, help="a folder in which the environments are made, and left")
    options = parser.parse_args()
    options.install = options.install or ["actconform[ort]"]
    if options.keep and options.keep.exists():
        parser.error(f"{options.keep} is there already: remove it, or name another folder")
    there = [python for python in options.python or PYTHONS if runs(python)]
    missing = [python for python in options.python or PYTHONS if python not in there]
    for python in missing:
        print(f"{python}: does not run here, not tried", file=sys.stderr)
    if not there or (options.python and missing):
        return 2
    print("| Python | installed | " + " | ".join(step.name for step in steps("", Path(), options)) + " |")
    print("|---|---|" + "---|" * len(steps("", Path(), options)))
    return int(not all([row(python, options) for python in there]))  # noqa: C419  it takes all of them


def runs(python: str) -> bool:
    """Whether a name is that of an interpreter that runs: on PATH may be a shim for one that is not there."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


def steps(python: str, folder: Path, options: argparse.Namespace) -> list[Step]:
    """Return what a user does, from an empty folder to the verdict on an ONNX file, then a run of cases."""
    there = str(folder / "venv" / "bin" / "python")
    install = [there, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    install += ["--find-links", str(options.dist.resolve())]
    install += ["-c", str(options.constraints.resolve())] if options.constraints else []
    actconform = [there, "-m", "actconform"]
    return [
        Step("python -m venv", [python, "-m", "venv", str(folder / "venv")]),
        Step("pip install", [*install, *options.install]),
        Step("actconform check", [*actconform, "check", "model.onnx"]),
        Step(f"actconform run '{options.pattern}'", [*actconform, "run", options.pattern]),
    ]


def row(python: str, options: argparse.Namespace) -> bool:
    """Take the steps with one Python and print its row; return whether all ended as they should."""
    with ExitStack() as stack:
        folder = _folder(python, options.keep, stack)
        write_model(folder / "model.onnx")
        asked = subprocess.run([python, "-c", RELEASES], capture_output=True, text=True, check=True)  # noqa: S603
        cells = [asked.stdout.strip(), ", ".join(options.install)]
        for step in steps(python, folder, options):
            started = time.perf_counter()
            done = subprocess.run(  # noqa: S603
                step.command, cwd=folder, env=NO_PYTHONPATH, capture_output=True, text=True, check=False
            )
            cells.append(f"{time.perf_counter() - started:.0f} s")
            (folder / "printed.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
            if done.returncode:
                cells[-1] = f"failed with {done.returncode}"
                print(f"{' '.join(step.command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}", file=sys.stderr)
                break
        print(f"| {' | '.join(cells)} |", flush=True)
        return not cells[-1].startswith("failed")


def _folder(python: str, keep: Path | None, stack: ExitStack) -> Path:
    """Return the empty folder of one Python: in `keep` if there is one, otherwise removed with `stack`."""
    if keep is None:
        return Path(stack.enter_context(TemporaryDirectory(prefix="actconform-installing-")))
    folder = keep.resolve() / Path(python).name
    folder.mkdir(parents=True)
    return folder


def write_model(path: Path) -> None:
    """Write the file that is checked: two layers of a perceptron."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in "xy")
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, [8, 8], [0.1 * (i % 7 - 3) for i in range(64)]) for name in "ab"
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["hidden"]),
        helper.make_node("Gelu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "b"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "perceptron", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


if __name__ == "__main__":
    sys.exit(main())
