"""A reproduction that is shown runs, with the framework alone; where none would, none is shown."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys

import made
import numpy as np
import pytest

from actconform.report.html.reproduce import cotangent_of, reproduction
from actconform.testdata.regimes import signed_powers
from actconform.types import Verdict, Worst


def worst(**fields):
    known = {"input_hex": "0x3f800000", "index": 3, "truth": 0.7310585786300049, "got": 0.5, "ulp": 9.0, "scaled": 2.0}
    return Worst(**{**known, **fields})


def case(case="sigmoid/value/f32/torch", implementation="torch.nn.functional.sigmoid", **fields):
    known = {
        "implementation": implementation,
        "findings": (made.finding("scaled-error", worst=worst()),),
        "verdict": Verdict.FAIL,
    }
    return made.result(case, **{**known, **fields})


NATIVE = {
    "torch": case(),
    "torch, 16 bits": case("elu/value/bf16/torch", "torch.nn.functional.elu(alpha=1.5)", findings=(made.finding("tail", worst=worst(input_hex="0xbf80")),)),
    "torch, gradient": case("sigmoid/gradient/f32/torch"),
    "keras": case("sigmoid/value/f32/keras", "keras.activations.sigmoid"),
    "keras, layer, gradient": case("leaky-relu-0.3/gradient/f16/keras", "keras.layers.LeakyReLU(negative_slope=0.3)", findings=(made.finding("tail", worst=worst(input_hex="0x3c00")),)),
    "onnxruntime": case("sigmoid/value/f32/authored+ort-cpu", "operator: Sigmoid; run as Sigmoid"),
}  # fmt: skip


@pytest.mark.parametrize("result", NATIVE.values(), ids=NATIVE)
def test_it_runs_and_prints_what_is_got_and_the_truth(result):
    code = reproduction(result)
    wanted = "onnxruntime" if "+" in result.route else result.route
    imports = [name.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import) for name in node.names]
    assert wanted in imports
    assert not [name for name in imports if name.startswith("actconform")]
    if importlib.util.find_spec(wanted) is None:
        pytest.skip(f"{wanted} is not installed")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    got, truth = run.stdout.splitlines()
    assert got.split()[0] == "got"
    assert np.isfinite(float(got.split()[1]))
    assert truth == "truth 0.7310585786300049"


@pytest.mark.parametrize(
    "result",
    [
        case(findings=()),
        case(findings=(made.finding("shape", worst=None),)),
        case(implementation="composition: x * torch.sigmoid(1.5 * x)"),
        case(implementation="torch.nn.functional.sigmoid(__import__('os').system('true'))"),
        case(implementation="os.system"),
        case("softmax/value/f32/torch", "torch.nn.functional.softmax(dim=-1)"),
        case("prelu/value/f32/torch", "torch.nn.functional.prelu"),
        case("no-such/value/f32/torch"),
        case("sigmoid/value/f32/torch-dynamo+ort-cpu", "dynamo"),
        case("sigmoid/value/f32/torch@old"),
        case("sigmoid/gradient/f32/authored+ort-cpu", "operator: Sigmoid"),
    ],
    ids=lambda result: result.case,
)
def test_none_is_shown_where_none_would_run(result):
    assert reproduction(result) == ""


def test_a_new_finding_is_shown_before_a_known_one_and_the_larger_first():
    findings = (
        made.finding("scaled-error", worst=worst(input_hex="0x40000000"), deviation="known"),
        made.finding("tail", worst=worst(input_hex="0x40400000"), magnitude=40.0),
        made.finding("tail", worst=worst(input_hex="0x40800000"), magnitude=60.0),
    )
    assert "40800000" in reproduction(case(findings=findings))


def test_the_cotangent_is_that_of_the_question():
    n = 200
    measurement = made.measurement(n=n, regime="edge", tensor="d_x")
    powers = signed_powers("sigmoid/powers/edge", n // 2)

    def asked(index, regime="edge"):
        finding = made.finding("tail", regime=regime, tensor="d_x", worst=worst(index=index))
        return cotangent_of(
            finding, case("sigmoid/gradient/f32/torch", measurements=(measurement,), findings=(finding,))
        )

    assert asked(7) == 1.0
    assert [asked(n // 2 + at) for at in range(9)] == powers[:9].tolist()
    assert asked(n) == 0.0
    assert asked(7, regime="tail") == 0.0
    assert reproduction(case("sigmoid/gradient/f32/torch")).count("torch.full_like(y, 1.0)") == 1
