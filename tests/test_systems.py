"""Systems other than Linux: modules that lack there, and /proc, are not needed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from filelock import FileLock

from actconform.errors import FolderInUseError
from actconform.files import sweep_folders, temporary_folder
from actconform.run.recorder import CLAIM, Recorder
from actconform.workers import resources
from actconform.workers.process import WorkerProcess

# What Windows lacks is taken away once all that others wrote is loaded, which asks the system itself.
EVERYTHING = """
import faulthandler, importlib, os, pkgutil, select, signal, sys
import click, distributed, filelock, hypothesis, msgspec, numba, numpy, onnx, onnx_ir, psutil, pytest, rich.console, scipy.special

LACKING = ("fcntl", "resource", "termios", "pwd", "grp", "pty", "tty")

class Windows:
    def find_spec(self, name, path=None, target=None):
        if name in LACKING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Windows())
for name in LACKING:
    sys.modules.pop(name, None)
for module, names in {
    os: ("killpg", "setsid", "sysconf", "readv", "fork", "sched_getaffinity", "getpriority", "O_NONBLOCK", "O_CLOEXEC"),
    signal: ("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGCHLD", "SIGPIPE", "SIGALRM"),
    select: ("poll",),
    faulthandler: ("register",),
}.items():
    for name in names:
        delattr(module, name)

import actconform
names = [module.name for module in pkgutil.walk_packages(actconform.__path__, "actconform.", onerror=lambda _: None)]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""

NO_PROC = """
import sys
def no_proc(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])
sys.addaudithook(no_proc)
"""


def test_every_module_is_imported_without_what_windows_lacks():
    done = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300


def test_a_worker_on_windows_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.delattr("select.poll")
    with pytest.raises(Exception, match="on Windows run actconform in the Windows Subsystem for Linux"):
        WorkerProcess([sys.executable, "-c", ""], {})


@pytest.fixture
def without_proc(tmp_path):
    """Return a function that runs a command where Python opens no file of /proc, in workers as little as in the driver."""
    (tmp_path / "sitecustomize.py").write_text(NO_PROC)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )

    return run


def test_a_case_is_judged_where_there_is_no_proc(without_proc):
    asked = "from actconform.machine.memory import available_bytes; from actconform.workers.resources import *; "
    told = without_proc("-c", asked + "print(available_bytes(), resident(), sorted(resources()))")
    assert told.stdout.startswith("0 0 ["), told.stderr
    assert "'threads'" in told.stdout
    done = without_proc("-m", "actconform", "run", "relu/value/f32/*", "--backend", "ort-cpu")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "CONFORMS" in done.stdout


def test_children_are_counted_without_linux_own_list(monkeypatch):
    counted = resources._children()
    there = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: there("/gone" if path == "/proc/self/task" else path))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert resources._children() == counted + 1
    finally:
        child.communicate()


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    killed = "import os, pathlib, signal; from actconform.run.recorder import Recorder\n"
    killed += f"recorder = Recorder(pathlib.Path({str(tmp_path)!r})); os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode < 0
    assert (tmp_path / CLAIM).exists()
    with FileLock(tmp_path / CLAIM), pytest.raises(FolderInUseError):
        Recorder(tmp_path)
    Recorder(tmp_path).__exit__(None, None, None)


def test_only_folders_of_processes_that_ended_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own = temporary_folder("swept-")
    for name in (f"swept-{ended.pid}-a", "swept-word-a"):
        (tmp_path / name).mkdir()
    sweep_folders("swept-")
    assert {path.name for path in tmp_path.iterdir()} == {own.name, "swept-word-a"}
