"""Other processors: a few kernels on emulated ones where QEMU is installed; what is refused or fails, everywhere."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from actconform.emulate import __main__ as emulate
from actconform.emulate.sysroot import Sysroot
from actconform.run.recorder import read_results

KERNELS = ("relu", "elu", "sigmoid", "gelu-erf", "softplus", "softmax")
CAPABILITY = "import numpy as np; print(*np.show_config(mode='dicts')['SIMD Extensions'].get('found', ()))"

x86 = pytest.mark.skipif(platform.machine() not in emulate.X86, reason="x86 is emulated on x86-64 alone")
emulated = pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None and shutil.which("qemu-x86_64-static") is None,
    reason="qemu-user is not installed: `make emulators`",
)


def program(folder: Path, name: str, body: str) -> None:
    """Have this shell script stand where a program does."""
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.mark.end_to_end
@x86
@emulated
@pytest.mark.parametrize(("processor", "has"), [("sse", {}), ("avx2", {"AVX2"})])
def test_six_kernels_conform_on_a_processor_that_this_machine_is_not(processor, has, tmp_path):
    patterns = [word for kernel in KERNELS for word in ("--pattern", f"{kernel}/*/f32/*")]
    command = [sys.executable, "-m", "actconform.emulate", processor, *patterns, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = read_results(tmp_path / processor)
    assert {result.subject for result in results} == set(KERNELS)
    assert {result.route for result in results} == {emulate.ROUTE}
    assert {str(result.verdict) for result in results} <= {"PASS", "XFAIL"}
    assert done.stdout.splitlines()[-1].startswith(f"{processor} (")
    asked = subprocess.run(
        [tmp_path / processor / "python", "-c", CAPABILITY], capture_output=True, text=True, check=True
    )
    names = set(asked.stdout.replace("X86_V3", "AVX2").replace("X86_V4", "AVX512").split())
    assert names & {"AVX2", "AVX512"} == set(has)


@x86
@pytest.mark.parametrize("processor", emulate.PROCESSORS)
def test_where_there_is_no_emulator_it_says_what_to_install(processor, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(emulate.main, [processor, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert f"there is no qemu-{emulate.PROCESSORS[processor].architecture}" in done.stderr
    assert "`make emulators`" in done.stderr
    assert not (tmp_path / "out").exists()


def test_x86_on_another_host_is_refused(tmp_path, monkeypatch):
    program(tmp_path, "qemu-x86_64", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    done = CliRunner().invoke(emulate.main, ["sse"])
    assert done.exit_code == 2
    assert "aarch64" in done.stderr


def test_another_processor_is_wrong_usage():
    done = CliRunner().invoke(emulate.main, ["z80"])
    assert done.exit_code == 2
    assert "'sse', 'avx2', 'arm64', 'arm64-sve'" in done.stderr


@pytest.mark.end_to_end
@x86
def test_a_processor_on_which_the_worker_dies_does_not_conform_and_the_next_one_runs_all_the_same(
    tmp_path, monkeypatch
):
    programs = tmp_path / "programs"
    programs.mkdir()
    program(programs, "qemu-x86_64", 'case $2 in Nehalem*) exit 3;; esac; shift 2; exec "$@"')
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    arguments = ["sse", "avx2", "--pattern", "relu/value/f32/*", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(emulate.main, arguments)
    assert done.exit_code == 1
    first, second = done.stdout.splitlines()
    assert first.startswith("sse (Nehalem: x86-64 with SSE4.2, without AVX): 1 case: 1 CRASH; ")
    assert second.startswith("avx2 (Haswell: ")
    assert "CRASH" not in second


def test_python_of_a_sysroot_finds_its_own_packages_before_the_drivers(tmp_path, monkeypatch):
    made = Sysroot(tmp_path / "made")
    (made.root / "usr/bin").mkdir(parents=True)
    (made.root / "usr/bin/python3.11").touch()
    monkeypatch.setattr(emulate, "sysroot", lambda requirements, say: made)
    program(tmp_path, "qemu-aarch64", 'echo "$PYTHONPATH"; echo "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    program(tmp_path, "python", emulate.interpreter(emulate.PROCESSORS["arm64"]))
    said = subprocess.run([tmp_path / "python", "-c", "a b"], capture_output=True, text=True, check=True).stdout
    path, words = said.splitlines()
    folders = path.split(os.pathsep)
    assert folders[0] == str(made.packages)
    assert str(Path(pytest.__file__).parents[1]) in folders
    assert str(Path(os.__file__).parent) not in folders
    assert words == f"-cpu neoverse-n1 -L {made.root} {made.python} -c a b"
