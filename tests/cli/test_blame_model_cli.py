"""Which package of two lock files brings what rounding does not explain, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

WOBBLE = "wobble 1.0 -> 2.0"


@pytest.fixture
def blame(cli, install, tmp_path, wheels):
    """Blame on a model of one operator, of which the inputs are given."""
    install(wobbly="wobbly_runtime:Plugin")
    for version in ("1.0", "2.0"):
        lines = f"wobble=={version}\nsteady=={version}\nelsewhere=={version}\n"
        (tmp_path / f"{version}.txt").write_text(lines)
    np.save(tmp_path / "x.npy", np.asarray([-2, -1, 0.5, 3], np.float32))

    def run(operator: str, *options: str, old: str = "1.0.txt", new: str = "2.0.txt", runtime: str = "wobbly"):
        text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) {{ y = {operator}(x) }}'
        onnx.save(parser.parse_model(text), "model.onnx")
        return cli("blame", old, new, "--model", "model.onnx", "--runtime", runtime, "--inputs", "x.npy", *options)

    return run


def test_a_package_is_named_for_what_it_brings_or_puts_right_and_not_the_one_beside_it(blame):
    brings = blame("Relu")
    assert brings.code == 0
    assert f"packages that changed: steady 1.0 -> 2.0, {WOBBLE}" in brings.out
    assert "with the old versions: rounding explains 1 of 1 output (steady 1.0, wobble 1.0)" in brings.out
    assert f"\n{WOBBLE} brings it\n" in brings.out
    assert "y: 4 of 4 elements differ, by at most" in brings.out
    assert "not tried: elsewhere 1.0 -> 2.0: wobbly does not run with it" in brings.out

    repairs = blame("Abs")
    assert (repairs.code, f"\n{WOBBLE} puts it right\n" in repairs.out) == (0, True)

    refuses = blame("Identity")
    assert "with the new versions: no outputs (steady 2.0, wobble 2.0): refused: no Identity any more" in refuses.out
    assert (refuses.code, f"\n{WOBBLE} brings it\n" in refuses.out) == (0, True)

    within_rounding = blame("Neg")
    assert within_rounding.code == 0
    assert "\nrounding explains the outputs with the old and with the new versions\n" in within_rounding.out
    assert "y: 4 of 4 elements differ, by at most 1 ULP, " in within_rounding.out

    wrong = blame("Sign", "--json")
    document = json.loads(wrong.out)
    assert (wrong.code, document["answers"]) == (1, [])
    assert document["old"]["outputs"][0]["error"] == document["new"]["outputs"][0]["error"] == 1.0
    assert document["differences"][0]["differing"] == 0


def test_a_package_that_did_not_change_has_the_version_of_the_lock_files(blame, tmp_path):
    for version in ("1.0", "2.0"):
        (tmp_path / f"{version}.txt").write_text(f"wobble==2.0\nsteady=={version}\n")
    answer = blame("Relu")
    assert "packages that changed: steady 1.0 -> 2.0\n" in answer.out
    assert (answer.code, "it is not a matter of these packages" in answer.out) == (1, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"old": "nosuch.txt"}, "nosuch.txt: cannot be read: No such file or directory; expected requirements.txt"),
        ({"new": "other.txt"}, "1.0.txt and other.txt have no package in common"),
        ({"new": "some.txt"}, "have no package that wobbly runs with (wobble, steady ...) in common"),
        ({"new": "9.txt"}, "wobble==9.0 cannot be installed"),
        ({"runtime": "wobbly@1.0"}, "wobbly@1.0: the lock files say which versions run; name the runtime, wobbly"),
        ({"runtime": "nameless"}, "nameless does not name the packages that compute"),
        ({"runtime": "wobly"}, "wobly is no runtime; did you mean wobbly"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(blame, tmp_path, changes, message):
    (tmp_path / "other.txt").write_text("pandas==2.0\n")
    (tmp_path / "some.txt").write_text("elsewhere==2.0\n")
    (tmp_path / "9.txt").write_text("wobble==9.0\n")
    answer = blame("Relu", **changes)
    assert (answer.code, message in answer.err) == (2, True), answer.err


def test_options_that_do_not_go_together_are_refused(blame, cli, tmp_path):
    assert "for a model: name it with --model" in cli("blame", "1.0.txt", "2.0.txt", "--runtime", "wobbly").err
    assert "--distribution names the packages of reports" in blame("Relu", "--distribution", "a=b").err
    assert "--range is for inputs that are drawn" in blame("Relu", "--range", "x=0:1").err
    assert not list(Path(tmp_path).glob("actconform-check"))
