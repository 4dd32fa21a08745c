"""The command line of a check: read by a shell and by the command itself, it asks for the same check."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnx import save
from small_models import made, numbers

from actconform.checking.command import check_command
from actconform.checking.session import CheckRequest
from actconform.cli.check_ import _Options, command

LINEAR = made("(float[n, 3] x) => (float[n, 2] y) { y = MatMul (x, w) }", {"w": numbers(1, 3, 2)})
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: str(Path(name)) == name
)
NUMBERS = st.floats(1.0, 1e6)


def parsed(line: str) -> CheckRequest:
    """Return the request that the command line makes."""
    program, verb, *words = shlex.split(line)
    assert (program, verb) == ("actconform", "check")
    return _Options(**command.make_context(verb, words).params).request


REQUESTS = st.fixed_dictionaries(
    {
        "source": NAMES.filter(lambda name: not name.startswith("-")),
        "against": st.lists(NAMES, max_size=2).map(tuple),
        "ranges": st.lists(NAMES, max_size=2).map(tuple),
        "runtimes": st.lists(NAMES, max_size=2).map(tuple),
        "exporters": st.lists(NAMES, max_size=2).map(tuple),
        "gradients": st.booleans(),
        "train_mode": st.booleans(),
        "trust": st.booleans(),
    },
    optional={
        "inputs": NAMES.map(Path),
        "reference": NAMES.map(Path),
        "config": NAMES.map(Path),
        "samples": st.integers(1, 1000),
        "dtype": st.sampled_from(["f16", "bf16"]),
        "autocast": st.sampled_from(["f16", "bf16"]),
        "data": NAMES,
        "metric": NAMES,
        "batch": st.integers(1, 9),
        "max_memory": NUMBERS,
        "timeout": NUMBERS,
    },
).map(lambda fields: CheckRequest(**fields))


@given(REQUESTS, st.integers(0, 9))
def test_the_command_line_asks_for_the_same(wanted: CheckRequest, number: int):
    if wanted.inputs is None:
        wanted = wanted._replace(seed=number)
    if wanted.data is not None:
        wanted = wanted._replace(worst=number)
    assert parsed(check_command(wanted)) == wanted


def test_a_file_named_like_an_option_is_no_option():
    assert Path(parsed(check_command(CheckRequest(source="-x.onnx"))).source) == Path("-x.onnx")


def test_the_command_of_one_export_names_its_exporter():
    request = CheckRequest(source="net:make", exporters=("torch-dynamo", "torch-torchscript"))
    assert parsed(check_command(request, "torch-dynamo")).exporters == ("torch-dynamo",)


def test_what_was_in_memory_has_no_command():
    assert not check_command(CheckRequest(source="model.onnx", in_memory=True))


def test_the_command_of_a_check_beside_saved_outputs_makes_the_same_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = numbers(2, 4, 3)
    save(LINEAR, "it's a model.onnx")
    np.savez("my inputs.npz", x=x)
    np.savez("-saved.npz", y=x @ numbers(1, 3, 2) + 1)  # another model's
    words = ["it's a model.onnx", "--inputs", "my inputs.npz", "--against", "-saved.npz"]
    runtimes = ["--runtime", "onnx-reference-float64"]
    assert command.main([*words, *runtimes, "--out", "first"], standalone_mode=False) == 1
    first = json.loads(Path("first/check.json").read_bytes())
    again = shlex.split(first["command"])[2:]
    assert command.main([*again, "--out", "second"], standalone_mode=False) == 1
    second = json.loads(Path("second/check.json").read_bytes())
    assert [column["name"] for column in first["runtimes"]] == ["onnx-reference-float64", "saved outputs"]
    assert {**second, "seconds": 0, "runtimes": []} == {**first, "seconds": 0, "runtimes": []}
    assert [column["outputs"] for column in second["runtimes"]] == [column["outputs"] for column in first["runtimes"]]
