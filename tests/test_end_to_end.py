"""The main job on the real frameworks, through the command line: every kernel and small model, every route, all dtypes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from math import inf, isnan, nan
from pathlib import Path

import pytest

from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.types.dtypes import DTYPES, from_hex

pytestmark = pytest.mark.end_to_end
ACTCONFORM = str(Path(sys.executable).with_name("actconform"))
ROUTES = ("keras", "torch", "authored+ort-cpu")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of the default matrix, as a user's `make conform` leaves it."""
    folder = tmp_path_factory.mktemp("conform")
    command = [ACTCONFORM, "run", "--out", str(folder)]
    cold = {**os.environ, "ACTCONFORM_CACHE": str(folder / "exports")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd=folder, env=cold, check=False)
    document = json.loads((folder / "report.json").read_bytes())
    document["exit"], document["screen"] = done.returncode, done.stdout
    return document


def test_the_default_matrix_conforms(report):
    bad = [r["case"] for r in report["results"] if r["verdict"] in ("FAIL", "XPASS", "ERROR", "CRASH", "TIMEOUT")]
    assert bad == []
    assert report["problems"] == []
    assert report["exit"] == 0
    assert "CONFORMS" in report["screen"]


def test_at_least_45_kernels_ran_on_each_required_route(report):
    for route in ROUTES:
        ran = {r["subject"] for r in report["results"] if r["route"] == route and r["verdict"] in ("PASS", "XFAIL")}
        assert len(ran) >= 45, route


def test_over_800_of_over_1000_cases_ran_on_all_routes(report):
    ran = [r for r in report["results"] if r["verdict"] in ("PASS", "XFAIL")]
    assert len(report["results"]) > 1000
    assert len(ran) > 800
    for exporter in ("torch-dynamo", "torch-torchscript", "tf2onnx", "keras-export"):
        assert len([r for r in ran if r["route"] == f"{exporter}+ort-cpu"]) >= 90, exporter


MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}


@pytest.mark.parametrize(
    ("aspect", "route"),
    [
        ("value", "keras"),
        ("value", "torch"),
        ("value", "authored+ort-cpu"),
        ("value", "tf2onnx+ort-cpu"),
        ("value", "torch-dynamo+ort-cpu"),
        ("gradient", "keras"),
        ("gradient", "torch"),
    ],
)
def test_at_least_14_models_conform_on_each_route(report, aspect, route):
    mine = [r for r in report["results"] if r["subject"] in MODELS and (r["aspect"], r["route"]) == (aspect, route)]
    assert {r["subject"] for r in mine} == set(MODELS)
    conforming = {r["subject"] for r in mine if r["verdict"] in ("PASS", "XFAIL")}
    assert len(conforming) >= 14, route
    measured = {r["subject"] for r in mine if any(m["n"] for m in r["measurements"])}
    assert len(conforming & measured) >= 14, route  # an invalid graph that is known is no model that runs
    assert {r["verdict"] for r in mine} <= {"PASS", "XFAIL", "UNSUPPORTED"}


def test_no_model_is_new_broken_or_without_an_answer(report):
    verdicts = {r["case"]: r["verdict"] for r in report["results"] if r["subject"] in MODELS}
    assert {
        case for case, verdict in verdicts.items() if verdict in ("FAIL", "ERROR", "CRASH", "TIMEOUT", "XPASS")
    } == set()
    shipped = [case for case in verdicts if "@const+ort-cpu" in case and verdicts[case] in ("PASS", "XFAIL")]
    assert len(shipped) > 3 * 14


@pytest.mark.parametrize("route", ["keras", "torch", "authored+ort-cpu", "tf2onnx+ort-cpu", "torch-dynamo+ort-cpu"])
def test_every_layer_of_a_model_that_ran_was_measured_alone(report, route):
    ran = [
        r
        for r in report["results"]
        if r["subject"] in MODELS and r["aspect"] == "value" and r["route"] == route and r["measurements"]
    ]
    assert len(ran) >= 14
    for result in ran:
        layers = [m["tensor"] for m in result["measurements"] if m["regime"] == "layers"]
        assert layers == [one.name for one in MODELS[result["subject"]].layers], result["case"]


def test_claims_about_functions_hold_on_every_route_that_computes_them(report):
    claimed = [r for r in report["results"] if r["subject"] in ("softmax", "relu", "argmax", "linear-stack")]
    assert len([r for r in claimed if r["verdict"] in ("PASS", "XFAIL")]) > 40
    assert not [f for r in claimed for f in r["findings"] if f["class"] == "property" and not f["deviation"]]


# Whose fault: case, class, an input inside the finding (None: the graph itself), blame.
BLAMES = [
    ("log-sigmoid/value/f32/torch-dynamo+ort-cpu", "inf", -104.5, "exporter"),
    ("log-sigmoid/value/f32/torch-torchscript+ort-cpu", "inf", -110.0, "exporter"),
    ("sigmoid/value/f32/torch-dynamo+ort-cpu", "tail", -17.9, "runtime"),
    ("sigmoid/value/f32/tf2onnx+ort-cpu", "tail", -17.9, "runtime"),
    ("elu/value/f32/torch-dynamo+ort-cpu", "tail", -2.97e-8, "runtime"),
    ("elu/value/f32/tf2onnx+ort-cpu", "tail", -2.97e-8, "runtime"),
    ("elu/value/f32/authored+ort-cpu", "tail", -2.97e-8, "runtime"),
    ("gelu-erf/value/f32/tf2onnx+ort-cpu", "invalid-model", None, "exporter"),
    ("gelu-erf/value/f32/keras-export+ort-cpu", "invalid-model", None, "exporter"),
    ("celu/value/f32/tf2onnx+ort-cpu", "invalid-model", None, "exporter"),
    ("celu/value/f32/keras-export+ort-cpu", "invalid-model", None, "exporter"),
    ("max/value/f16/torch-dynamo+ort-cpu", "dtype", None, "exporter"),
    ("swiglu/value/f32/torch-dynamo+ort-cpu", "shape", None, "exporter"),
    ("elu/value/f32/keras", "tail", -2.97e-8, "framework"),
]


@pytest.mark.parametrize(("case", "class_", "x", "blame"), BLAMES)
def test_blame_falls_where_it_belongs(report, case, class_, x, blame):
    result = next(r for r in report["results"] if r["case"] == case)
    found = [f for f in result["findings"] if f["class"] == class_ and (x is None or holds(f, x, result["dtype"]))]
    assert {f["blame"] for f in found} == {blame}
    assert all(f["evidence"] for f in found)


def test_every_case_has_exactly_one_result(report):
    listed = subprocess.run([ACTCONFORM, "list", "cases"], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == sorted(r["case"] for r in report["results"])


def test_ort_cuda_never_gives_a_cpu_number(report):
    cuda = [r for r in report["results"] if r["route"] == "authored+ort-cuda"]
    assert cuda
    facts = report["facts"]["backends"]["ort-cuda"]
    for result in cuda:
        assert result["verdict"] == "UNAVAILABLE" or "cuda" in facts["device"].lower()
        assert result["verdict"] != "UNAVAILABLE" or result["reason"]


def test_no_exact_rows_for_what_is_not_implemented(report):
    """ONNX Runtime has hardly any bf16 kernel on the CPU: it says so, and no number stands there."""
    relu = next(r for r in report["results"] if r["case"] == "relu/value/bf16/authored+ort-cpu")
    assert relu["verdict"] == "UNSUPPORTED"
    assert "NOT_IMPLEMENTED" in relu["reason"]
    assert relu["measurements"] == []


# What divides the frameworks, from public reports: case, finding, an input inside the finding (None: a row).
DIVERGENCES = [
    ("elu/value/f32/keras", "tail", -2.97e-8),
    ("elu/value/f32/authored+ort-cpu", "tail", -2.97e-8),
    ("selu/value/f32/keras", "tail", -1e-30),
    ("celu/value/f32/authored+ort-cpu", "tail", -1e-30),
    ("gelu-erf/value/f32/torch", "tail", -5.598),
    ("gelu-erf/value/f32/authored+ort-cpu", "tail", -5.598),
    ("gelu-erf/value/bf16/torch", "tail", -8.625),
    ("elu/gradient/f32/keras", "tail", -17.39),
    ("gelu-tanh/gradient/f32/keras", "tail", -4.848),
    ("sigmoid/value/f32/authored+ort-cpu", "tail", -17.9),
    ("leaky-relu-default/value/f32/keras", "scaled-error", -1.0),
    ("hard-sigmoid-default/value/f32/keras", "scaled-error", -2.0),
    ("hard-sigmoid-default/value/f32/torch", "scaled-error", -2.0),
    ("celu/gradient/f32/keras", "kink", 0.0),
    ("hard-swish/value/f32/torch", "inf", 3e38),
    ("squareplus/value/f32/keras", "inf", 1e20),
    ("squareplus/value/f32/keras", "inf", -1e20),
    ("gelu-tanh/gradient/f32/torch", "nan-made", 2.0**64),
    ("gelu-tanh/gradient/f32/keras", "nan-made", 2.0**64),
    ("softsign/value/f32/authored+ort-cpu", "range", 3e38),
    *(
        (f"{kernel}/value/f32/{route}", "nan-made", -inf)
        for kernel in ("silu", "mish", "gelu-tanh")
        for route in ROUTES
    ),
    *((f"softsign/value/f32/{route}", "nan-made", end) for end in (-inf, inf) for route in ROUTES),
    ("hard-shrink/value/f32/keras", "nan-lost", nan),
    ("soft-shrink/value/f32/keras", "nan-lost", nan),
    ("threshold/value/f32/keras", "nan-lost", nan),
    ("hard-shrink/value/f32/authored+ort-cpu", "nan-lost", nan),
    ("thresholded-relu/value/f32/authored+ort-cpu", "nan-lost", nan),
    *(
        (f"{kernel}/gradient/f32/torch", "position-dependent", nan)
        for kernel in ("hard-tanh", "hard-shrink", "soft-shrink", "relu6")
    ),
    ("relu/value/f32/torch", "zero-sign", -0.0),
    ("relu/value/f32/authored+ort-cpu", "zero-sign", -0.0),
    ("selu/value/f32/authored+ort-cpu", "zero-sign", -0.0),
    ("relu/value/f32/keras", "subnormal-flush", 1e-40),
    ("sparsemax/value/f32/keras", "scaled-error", None),
    ("argmax/value/f32/keras", "dtype", None),
]


@pytest.mark.parametrize(("case", "class_", "x"), DIVERGENCES)
def test_a_first_run_finds_the_known_divergence(report, case, class_, x):
    result = next(r for r in report["results"] if r["case"] == case)
    assert result["verdict"] == "XFAIL"
    found = [f for f in result["findings"] if f["class"] == class_ and (x is None or holds(f, x, result["dtype"]))]
    assert found, [(f["class"], f["interval"]) for f in result["findings"]]
    assert all(f["deviation"] for f in found)


def test_onednn_divides_torch_gelu_from_itself(report):
    """The overflow of gelu is oneDNN's, with AVX-512 only: elsewhere the same kernel is clean there."""
    result = next(r for r in report["results"] if r["case"] == "gelu-erf/value/f32/torch")
    there = any(f["class"] == "inf" and holds(f, 3e38, "f32") for f in result["findings"])
    assert there == (report["facts"]["backends"]["torch"]["onednn"] == "AVX512")


@pytest.mark.parametrize("case", ["elu/value/f32/torch", "sigmoid/value/f32/torch", "sigmoid/value/f32/keras"])
def test_what_is_healthy_passes(report, case):
    assert next(r for r in report["results"] if r["case"] == case)["verdict"] == "PASS"


@pytest.mark.parametrize(
    ("case", "x", "side"),
    [
        ("selu/gradient/f32/torch", 0.0, "left"),
        ("selu/gradient/f32/keras", 0.0, "right"),
        ("hard-tanh/gradient/f32/torch", 1.0, "right"),
        ("hard-tanh/gradient/f32/keras", 1.0, "left"),
        ("leaky-relu/gradient/f32/torch", 0.0, "left"),
        ("leaky-relu/gradient/f32/keras", 0.0, "left"),
        ("relu/gradient/f32/torch", 0.0, "left"),
    ],
)
def test_the_side_chosen_at_a_kink_is_recorded(report, case, x, side):
    result = next(r for r in report["results"] if r["case"] == case)
    sides = {m["kinks"][at] for m in result["measurements"] for at in m["kinks"] if from_hex(at, DTYPES["f32"]) == x}
    assert sides == {side}


def test_defaults_are_blamed_on_convention_and_numbers_on_the_framework(report):
    blame = {r["case"]: {f["blame"] for f in r["findings"]} for r in report["results"]}
    assert blame["hard-sigmoid-default/value/f32/torch"] == {"convention"}
    assert "framework" in blame["elu/value/f32/keras"]
    assert not any("framework" in blame[case] for case in blame if fnmatchcase(case, "*+ort-*"))


def holds(finding, x, dtype):
    """Tell whether x lies in the finding's interval; NaN only in one of NaN."""
    if not finding["interval"][0]:
        return False
    low, high = (from_hex(end, DTYPES[dtype]) for end in finding["interval"])
    return isnan(low) if isnan(x) else low <= x <= high
