"""A command as a runtime: what it answers is taken, and whatever else it does is named."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from actconform.errors import Unavailable, Unsupported, WorkerTimeout
from actconform.settings import BackendConfig, Config
from actconform.types import Artifact, Case
from actconform.workers import command_program
from actconform.workers.command_program import CommandProgram, GraphFiles
from actconform.workers.command_runtime import CommandSettings, runtime
from actconform.workers.from_settings import configured_worker
from actconform.workers.protocol import Call, Job
from actconform.workers.session import CommandError

X = np.array([1.0, -2.0, np.nan], np.float32)
RELU = """
    import sys, pathlib, numpy as np
    model, given, taken = map(pathlib.Path, sys.argv[1:])
    assert model.read_bytes() and [p.name for p in given.iterdir()] == ["x.npy"] and not [*taken.iterdir()]
    x = np.load(given / "x.npy")
    np.save(taken / "y.npy", np.maximum(x, 0))
"""


def graph(kind: int = TensorProto.FLOAT, output: str = "y") -> Artifact:
    ends = [helper.make_tensor_value_info(name, kind, ["n"]) for name in ("x", output)]
    made = helper.make_graph([helper.make_node("Relu", ["x"], [output])], "relu", ends[:1], ends[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Artifact(model.SerializeToString(), 18, "authored: Relu")


def about(folder: Path, script: str, **settings: Any) -> CommandSettings:
    (folder / "rt.py").write_text(textwrap.dedent(script))
    words = f"{sys.executable} rt.py {{model}} {{inputs}} {{outputs}}"
    return CommandSettings(**{"name": "myrt", "command": words, "folder": str(folder), **settings})


def answered(folder: Path, script: str, x: Any = X, artifact: Artifact | None = None, **settings: Any) -> Any:
    settled = about(folder, script, **settings)
    program = CommandProgram(settled, GraphFiles(settled, artifact or graph()), "")
    try:
        return program.forward({"x": x})
    finally:
        program.close()


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def test_the_answer_is_what_the_command_writes_and_no_file_stays(tmp_path):
    outputs = answered(tmp_path, RELU)
    assert list(outputs) == ["y"]
    np.testing.assert_array_equal(outputs["y"], np.maximum(X, 0))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_tensors_may_be_protos(tmp_path):
    script = """
        import sys, pathlib, onnx, numpy as np
        from onnx import numpy_helper
        model, given, taken = map(pathlib.Path, sys.argv[1:])
        onnx.checker.check_model(onnx.load(model))
        x = numpy_helper.to_array(onnx.load_tensor(given / "x.pb"))
        onnx.save_tensor(numpy_helper.from_array(np.maximum(x, 0)), taken / "y.pb")
    """
    np.testing.assert_array_equal(answered(tmp_path, script, tensors="pb")["y"], np.maximum(X, 0))


def test_bfloat16_goes_by_its_bits(tmp_path):
    script = RELU.replace("np.maximum(x, 0)", "np.where(x < 0x8000, x, 0).astype(np.uint16)")
    x = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    y = answered(tmp_path, script, x, graph(TensorProto.BFLOAT16))["y"]
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(y.astype(float), [1.5, 0.0])


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", r"myrt wrote nothing to \{outputs\}: wanted y.npy, no more"),
        (RELU.replace("y.npy", "z.npy"), r"myrt wrote z.npy to \{outputs\}: wanted y.npy"),
        (RELU + "    (taken / 'log.txt').touch()", r"myrt wrote log.txt, y.npy to \{outputs\}: wanted y.npy"),
        ("import sys; open(sys.argv[3] + '/y.npy', 'w').write('1 0')", "myrt wrote y.npy, which is no tensor: "),
        ("import sys, os; os.mkdir(sys.argv[3] + '/y.npy')", "myrt wrote y.npy, which is no plain file"),
        ("import sys, os; os.mkfifo(sys.argv[3] + '/y.npy')", "myrt wrote y.npy, which is no plain file"),
        ("import sys, os; os.symlink('/dev/zero', sys.argv[3] + '/y.npy')", "myrt wrote y.npy, which is no plain file"),
        ("import sys, os; os.symlink('nowhere', sys.argv[3] + '/y.npy')", "myrt wrote y.npy, which is no plain file"),
        (
            "import sys; sys.exit('no device\\n\\n  at all')",
            r"myrt ended with exit code 1; its last words:\n  no device\n  at all$",
        ),
        ("import sys; print('only here'); sys.exit(2)", r"exit code 2; its last words:\n  only here$"),
        ("raise SystemExit(4)", "myrt ended with exit code 4; it said nothing"),
        ("import os; os.abort()", "myrt was killed by SIGABRT"),
        (
            "import sys; [print(n, file=sys.stderr) for n in range(10**5)]; sys.exit(1)",
            r"words:\n  99992\n(  \d+\n)+  99999$",
        ),
    ],
)
def test_anything_else_is_an_error_that_says_what_it_did(tmp_path, script, expected):
    with pytest.raises(CommandError, match=expected):
        answered(tmp_path, script)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_answer_that_is_far_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(command_program, "MOST_BYTES", 100)
    with pytest.raises(CommandError, match=r"myrt wrote 140 bytes to \{outputs\}: wanted at most 100"):
        answered(tmp_path, RELU)


def test_exit_code_3_is_unsupported_in_the_commands_words(tmp_path):
    with pytest.raises(Unsupported, match=r"^no Relu here$"):
        answered(tmp_path, "import sys; print('loading'); print('no Relu here', file=sys.stderr); sys.exit(3)")
    with pytest.raises(Unsupported, match="myrt ended with exit code 3 and gives no reason"):
        answered(tmp_path, "raise SystemExit(3)")


@pytest.mark.parametrize("name", ["a/b", "/encoder/Add_output_0", "..", ".hidden", "y" * 300])
def test_a_tensor_whose_name_is_no_file_has_another_in_the_graph_that_the_command_gets(tmp_path, name):
    script = RELU.replace("y.npy", "tensor_0.npy")
    assert list(answered(tmp_path, script, artifact=graph(output=name))) == [name]


def test_facts_tell_the_command_and_its_version(tmp_path):
    settings = {"version": f"{sys.executable} -c 'print(); print(\"  rt 1.2  \")'"}
    facts = runtime(about(tmp_path, RELU, **settings))().facts()
    assert facts["version"] == "rt 1.2"
    assert facts["command"].endswith("rt.py {model} {inputs} {outputs}")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"command": "./gone {model} {inputs} {outputs}"},
            r"there is no program ./gone in /.*fix command of \[backends.myrt\]",
        ),
        ({"command": "gone-for-good {model} {inputs} {outputs}"}, "there is no program gone-for-good on PATH"),
        ({"version": "./gone --version"}, "it gives no version: .*No such file"),
        ({"version": "false"}, "it gives no version: false ended with exit code 1: it said nothing"),
        ({"version": "true"}, "it gives no version"),
    ],
)
def test_what_cannot_run_here_is_unavailable_and_why(tmp_path, settings, expected):
    with pytest.raises(Unavailable, match=expected):
        runtime(about(tmp_path, RELU, **settings))().facts()


def test_files_of_workers_that_were_killed_are_swept(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for pid in (ended.pid, os.getpid()):
        (tmp_path / "tmp" / f"{command_program.PREFIX}{pid}-abc").mkdir()
    (tmp_path / "tmp" / f"{command_program.PREFIX}not-a-number").mkdir()
    runtime(about(tmp_path, RELU))()
    left = {path.name for path in (tmp_path / "tmp").iterdir()}
    assert left == {f"{command_program.PREFIX}{os.getpid()}-abc", f"{command_program.PREFIX}not-a-number"}


def job(x: Any = X) -> Job:
    return Job(Case("relu", "value", "f32", "authored+myrt"), graph(), [Call("ordinary", {"x": x})])


def config(folder: Path, script: str) -> Config:
    made = about(folder, script)
    return Config(backends={"myrt": BackendConfig(command=made.command)}, path=str(folder / "actconform.toml"))


def test_a_worker_serves_the_command_of_the_settings(tmp_path):
    with configured_worker("myrt", config(tmp_path, RELU)) as worker:
        hello = worker.start(60)
        assert (hello.backend, hello.kind, hello.unavailable, hello.problem) == ("myrt", "runtime", "", "")
        outcome = worker.run(job(), 60)
    assert outcome.failure is None
    assert (outcome.implementation, outcome.mutated, outcome.unsteady) == ("authored: Relu", [], [])
    np.testing.assert_array_equal(outcome.outputs[0]["y"], np.maximum(X, 0))


def test_an_error_of_the_command_reaches_the_report_without_places_in_code(tmp_path):
    with configured_worker("myrt", config(tmp_path, "import sys; sys.exit('no device')")) as worker:
        failure = worker.run(job(), 60).failure
    assert msgspec.to_builtins(failure) == {
        "stage": "run",
        "kind": "error",
        "message": "myrt ended with exit code 1; its last words:\n  no device",
        "call": 0,
    }


def test_a_command_that_hangs_is_ended_with_its_worker(tmp_path):
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with configured_worker("myrt", config(tmp_path, script)) as worker:
        worker.start(60)
        with pytest.raises(WorkerTimeout, match="the myrt worker gave no answer in"):
            worker.run(job(), 3)
    pid = int((tmp_path / "pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_program_that_stands_alone_gives_what_the_command_gives(tmp_path):
    text = runtime(about(tmp_path, RELU.replace("y.npy", "tensor_1.npy"))).reproduction()
    program: dict[str, Any] = {}
    exec(text, program)  # noqa: S102  as repro.py runs it
    (tmp_path / "model.onnx").write_bytes(graph(output="norm/Add").model)
    outputs = program["run"](str(tmp_path / "model.onnx"), {"x": X}, "")
    assert list(outputs) == ["norm/Add"]
    np.testing.assert_array_equal(outputs["norm/Add"], np.maximum(X, 0))
