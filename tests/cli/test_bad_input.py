"""What a person gets wrong on the command line: one clear message with the mend, exit code 2, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ACTCONFORM = Path(sys.executable).with_name("actconform")
PLUGIN = """
from actconform import hookimpl

class Plugin:
    @hookimpl
    def {hook}(self{arguments}):
        return ()
"""
ADOPTABLE = '{"schema": 1, "facts": {"backends": {}}, "conforms": true, "problems": [], "timings": {}, "summary": {}, "results": []}'
FOREIGN = '{"name": "some other tool", "results": {"a": 1}}'


def plugin(name: str, module: str) -> dict[str, str]:
    """The files of an installed distribution `name` whose plugin is called "mine"."""
    return {
        f"site/{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"site/{name}-1.0.dist-info/entry_points.txt": f"[actconform]\nmine = {module}:Plugin\n",
    }


def mistyped(hook: str, arguments: str = "") -> dict[str, str]:
    return plugin("first", "mine_mistyped") | {"site/mine_mistyped.py": PLUGIN.format(hook=hook, arguments=arguments)}


class Mistake(NamedTuple):
    """A command, the files around it, and what its message must hold."""

    command: str
    expected: tuple[str, ...]
    files: Mapping[str, str] = MappingProxyType({})


ONE = "run relu/value/f32/torch"
# through the installed command
COMMANDS = {
    "pattern": Mistake(
        "run gelu-erv/value/f32/torch", ("'gelu-erv'", "did you mean gelu-erf", "actconform list cases")
    ),
    "pattern-of-nothing": Mistake("run argmax/gradient/*", ("matches no case", "SUBJECT/ASPECT/DTYPE/ROUTE")),
    "published-without-full": Mistake(
        "run mlp-relu@published/value/*", ("'mlp-relu@published/value/*' matches no case", "--full")
    ),
    "backend": Mistake("run --backend torhc", ("unknown backend 'torhc'", "did you mean torch")),
    "route": Mistake("run --route authored+ort", ("unknown route", "did you mean authored+ort-")),
    "aspect": Mistake("run --aspect grad", ("unknown aspect 'grad'", "gradient")),
    "dtype": Mistake("run --dtype bfloat16", ("unknown dtype 'bfloat16'", "bf16")),
    "require": Mistake("run --require ort-cpu", ("required route 'ort-cpu' is unknown", "authored+ort-cpu")),
    "unknown-key": Mistake(
        "run", ("actconform.toml", "unknown key 'thread'", "did you mean threads?"), {"actconform.toml": "thread = 2"}
    ),
    "out-is-a-file": Mistake(f"{ONE} --out taken", ("--out taken", "name a folder"), {"taken": ""}),
    "two-plugins-of-one-name": Mistake(
        "run",
        ("two plugins are called 'mine'", "first 1.0", "second 1.0", "uninstall or rename one"),
        plugin("first", "mine_a") | plugin("second", "mine_b"),
    ),
    "mistyped-hook": Mistake(
        "run",
        ("first 1.0", "a hook that nothing calls: actconform_backend", "did you mean actconform_backends"),
        mistyped("actconform_backend"),
    ),
    "command": Mistake("rnu", ("no command 'rnu'", "did you mean run")),
    "kernel-to-verify": Mistake(
        "golden verify sigmod", ("unknown kernel, model or experiment 'sigmod'", "did you mean sigmoid")
    ),
    "adopt-nothing": Mistake("deviations adopt gone", ("gone: cannot be read", "actconform run")),
    "adopt-foreign": Mistake(
        "deviations adopt .", ("report.json", "is JSON, but not the report of a run"), {"report.json": FOREIGN}
    ),
    "adopt-over-a-file": Mistake(
        "deviations adopt . -o mine.toml",
        ("mine.toml exists", "nothing was overwritten", "--output"),
        {"report.json": ADOPTABLE, "mine.toml": "# mine"},
    ),
}
# in this process, which takes a tenth of the time
CALLS = {
    "second-pattern": Mistake("run relu/* nothing", ("'nothing'", "matches no case")),
    "nothing-together": Mistake("run */value/* --aspect gradient", ("together select no case",)),
    "unknown-key-of-backend": Mistake(
        "run",
        ("actconform.toml", "unknown key 'interpreter'", "known: python, env"),
        {"actconform.toml": "[backends.torch]\ninterpreter = 'python3'"},
    ),
    "unknown-backend-table": Mistake(
        "run", ("actconform.toml: [backends.torhc]", "did you mean torch"), {"actconform.toml": "[backends.torhc]"}
    ),
    "unknown-backend-table-elsewhere": Mistake(
        "run --config my.toml", ("my.toml: [backends.torhc]",), {"my.toml": "[backends.torhc]"}
    ),
    "wrong-type": Mistake(
        "run", ("actconform.toml", "Expected `int`", "threads"), {"actconform.toml": "threads = 'two'"}
    ),
    "no-threads": Mistake("run", ("actconform.toml", "at least 1"), {"actconform.toml": "threads = 0"}),
    "bad-toml": Mistake("run", ("actconform.toml: not valid TOML", "line 1"), {"actconform.toml": "threads == 2"}),
    "missing-config": Mistake("run --config gone.toml", ("gone.toml: cannot be read",)),
    "required-in-config": Mistake(
        "run", ("required route 'torhc' is unknown", "torch"), {"actconform.toml": 'require = ["torhc"]'}
    ),
    "missing-deviations": Mistake(
        ONE, ("gone.toml", "cannot be read"), {"actconform.toml": 'deviations = ["gone.toml"]'}
    ),
    "bad-deviations": Mistake(
        ONE,
        ("mine.toml", "unknown field `idd`"),
        {"actconform.toml": 'deviations = ["mine.toml"]', "mine.toml": "[[cause]]\nidd = 1"},
    ),
    "out-empty": Mistake(f"{ONE} --out=", ("--out is empty", "name a folder")),
    "config-python-empty": Mistake(
        ONE, ("[backends.torch]", "python"), {"actconform.toml": "[backends.torch]\npython = ''"}
    ),
    "config-env-name": Mistake(
        ONE, ("[backends.torch]", "env"), {"actconform.toml": "[backends.torch]\nenv = { 'A=B' = 'x' }"}
    ),
    "out-below-a-file": Mistake(f"{ONE} --out taken/below", ("--out taken/below", "name a folder"), {"taken": ""}),
    "out-of-config-is-a-file": Mistake(
        ONE, ("taken", "name a folder"), {"actconform.toml": "out = 'taken'", "taken": ""}
    ),
    "hook-of-other-arguments": Mistake(
        "list cases", ("first 1.0", "a hook does not fit"), mistyped("actconform_kernels", ", x")
    ),
    "option": Mistake("run --dtpye f32", ("--dtpye", "--dtype")),
    "list-what": Mistake("list kernel", ("'kernel'", "kernels")),
    "golden-command": Mistake("golden verfy", ("'verfy'",)),
    "model-to-verify": Mistake(
        "golden verify mlp-rellu", ("unknown kernel, model or experiment 'mlp-rellu'", "mlp-relu")
    ),
    "model": Mistake("run mlp-rellu/value/f32/torch", ("nothing is called 'mlp-rellu'", "did you mean mlp-relu")),
    "kernel-to-mint": Mistake(
        "golden mint --folder new sigmod", ("unknown kernel, model or experiment 'sigmod'", "sigmoid")
    ),
    "kernel-to-export": Mistake(
        "golden export new sigmod", ("unknown kernel, model or experiment 'sigmod'", "sigmoid")
    ),
    "experiment-to-export": Mistake("golden export new blobs-adam", ("blobs-adam is an experiment", "name kernels")),
    "export-layout": Mistake("golden export --format tf new relu", ("'tf'", "onnx")),
    "export-into-a-file": Mistake("golden export taken relu", ("taken is no folder",), {"taken": ""}),
    "export-into-a-full-folder": Mistake("golden export taken relu", ("taken is not empty",), {"taken/file": ""}),
    "mint-into-a-file": Mistake("golden mint --folder taken relu", ("taken", "cannot be written"), {"taken": ""}),
    "no-goldens": Mistake("golden verify --folder gone", ("gone/manifest.json: no such file", "golden mint")),
    "nothing-to-compare": Mistake("golden diff gone gone", ("gone/manifest.json: no such file",)),
    "adopt-list": Mistake("deviations adopt .", ("report.json", "not the report of a run"), {"report.json": "[1, 2]"}),
    "adopt-no-json": Mistake("deviations adopt .", ("report.json", "is cut off"), {"report.json": "{"}),
}


def lay(mistake: Mistake, folder: Path) -> None:
    for name, text in mistake.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def run(mistake: Mistake, folder: Path) -> subprocess.CompletedProcess[str]:
    lay(mistake, folder)
    environment = os.environ | {"PYTHONPATH": str(folder / "site")}
    command = [ACTCONFORM, *mistake.command.split()]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Iterator[dict[str, Future]]:
    """All commands, a few at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(run, mistake, tmp_path_factory.mktemp(name)) for name, mistake in COMMANDS.items()}


def check(mistake: Mistake, code: int, output: str, message: str) -> None:
    assert code == 2, message
    assert output == ""
    assert "Traceback" not in message
    lines = message.splitlines()
    assert lines[0].startswith(("error: ", "Error: ", "Usage: "))
    assert 1 <= len(lines) <= (5 if lines[0].startswith("Usage") else 2)
    for words in mistake.expected:
        assert words in message


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_ends_with_code_2_and_a_short_message_that_names_the_mend(name: str, answers: dict[str, Future]):
    done = answers[name].result()
    check(COMMANDS[name], done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("name", CALLS)
def test_other_mistakes_likewise(name: str, tmp_path: Path, monkeypatch, cli):
    mistake = CALLS[name]
    lay(mistake, tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site")
    check(mistake, *cli(*mistake.command.split()))


def test_the_right_words_in_place_of_the_wrong_ones_are_taken(tmp_path: Path):
    # the harness itself: a plugin of an own name and a hook that fits are no mistake
    done = run(Mistake("list routes", (), mistyped("actconform_backends")), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "torch" in done.stdout.split()
