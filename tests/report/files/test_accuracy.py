"""accuracy.json: what others may cite is the worst that was measured, with its limit, unit and versions."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from made import FACTS, finding, measurement, report, result

from actconform.report.error_ratio import worst_error_ratio
from actconform.report.files.accuracy import AccuracyReporter
from actconform.types import Verdict

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("measurements", "findings", "share"),
    [
        ((), (), None),
        ((measurement(2.0), measurement(4.0, regime="huge")), (), 0.5),
        ((measurement(0.0, 0.0),), (), 0.0),
        ((measurement(1e6),), (), None),  # accepted, at a kink: no finding
        ((measurement(80.0),), (finding("scaled-error", magnitude=80.0),), 10.0),
        ((measurement(1.0),), (finding("tail", magnitude=40.0),), 5.0),
        ((measurement(1.0),), (finding("bias", magnitude=1.5),), 1.5),
        ((measurement(1.0, 0.0),), (finding("scaled-error", magnitude=1.0),), math.inf),
        ((measurement(1.0),), (finding("nan-lost", magnitude=0.0),), 0.125),
        ((measurement(1.0),), (finding("scaled-error", magnitude=math.nan),), 0.125),
        ((measurement(1.0),), (finding("scaled-error", magnitude=80.0, regime="gone"),), 0.125),
    ],
)
def test_the_share_of_a_case_is_its_worst_error_against_its_limit(measurements, findings, share) -> None:
    worst = worst_error_ratio(result(measurements=measurements, findings=findings))
    assert (worst and worst.ratio) == share


def test_every_case_that_ran_is_cited_with_unit_and_versions(tmp_path: Path) -> None:
    ran = result(
        "gelu/gradient/f16/torch-dynamo+ort-cpu@all",
        measurements=(measurement(2.0, max_ulp=3.0), measurement(4.0, 5.0, tensor="d_x", regime="huge", max_ulp=90.0)),
    )
    known = result("elu/value/f32/torch", Verdict.XFAIL, findings=(finding(deviation="torch-elu"),))
    AccuracyReporter().write(report(ran, known, result("mish/value/f32/torch", Verdict.CRASH)), tmp_path)
    document = json.loads((tmp_path / "accuracy.json").read_text())
    assert document["facts"]["backends"] == FACTS.backends
    assert document["when"] == "2026-02-01T00:00:00Z"
    first, second = document["entries"]
    assert (first["kernel"], first["known"], first["unit"], first["share"]) == ("elu", ["torch-elu"], "ulp", 5.0)
    assert second == {
        "kernel": "gelu",
        "aspect": "gradient",
        "dtype": "f16",
        "route": "torch-dynamo+ort-cpu@all",
        "backend": "ort-cpu@all",
        "verdict": "PASS",
        "error": 4.0,
        "limit": 5.0,
        "share": 0.8,
        "unit": "scaled",
        "tensor": "d_x",
        "regime": "huge",
        "max_ulp": 90.0,
        "n": 200,
        "known": [],
    }
    assert set(document["units"]) >= {first["unit"], second["unit"]}


def test_an_infinite_error_is_a_word(tmp_path: Path) -> None:
    broken = result(measurements=(measurement(1.0),), findings=(finding("scaled-error", magnitude=math.inf),))
    AccuracyReporter().write(report(broken), tmp_path)
    (entry,) = json.loads((tmp_path / "accuracy.json").read_text(), parse_constant=pytest.fail)["entries"]
    assert (entry["error"], entry["share"]) == ("inf", "inf")
