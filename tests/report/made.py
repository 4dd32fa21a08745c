"""Results and reports made by hand, for tests of what is done with them."""

from __future__ import annotations

from typing import Any

from actconform.types import Blame, Finding, FindingClass, Interval, Measurement, Result, Verdict, Worst
from actconform.types.report import SCHEMA, Facts, Report
from actconform.verdict.severity import graded

FACTS = Facts(
    actconform="0.1.0",
    goldens="0123",
    backends={"torch": {"torch": "2.12.0"}, "ort-cpu": {"onnxruntime": "1.30.0", "threads": "1"}},
)


def finding(class_: str = "tail", low: str = "0x3f800000", high: str = "0x40000000", **fields: Any) -> Finding:
    """A finding over an interval; `fields` override."""
    worst = Worst(input_hex=high, index=3, truth=1.5, got=1.25, ulp=40.0, scaled=2.0)
    made: dict[str, Any] = {
        "count": 7,
        "regime": "tail",
        "tensor": "y",
        "worst": worst,
        "magnitude": 40.0,
        "blame": Blame.RUNTIME,
    }
    return Finding(class_=FindingClass(class_), interval=Interval(low, high), **{**made, **fields})


def measurement(scaled: float = 1.0, limit: float = 8.0, **fields: Any) -> Measurement:
    made: dict[str, Any] = {
        "tensor": "y",
        "regime": "tail",
        "n": 100,
        "max_ulp": 3.0,
        "bias": 0.0,
        "histogram": (90, 10),
        "unit": "scaled",
    }
    margin = limit / scaled if scaled else float("inf")
    return Measurement(max_scaled=scaled, limit=limit, margin=margin, **{**made, **fields})


def result(case: str = "relu/value/f32/torch", verdict: Verdict | None = None, **fields: Any) -> Result:
    """A result as a run has it, PASS where it has no findings, else FAIL."""
    subject, aspect, dtype, route = case.split("/", 3)
    verdict = verdict or (Verdict.FAIL if fields.get("findings") else Verdict.PASS)
    made: dict[str, Any] = {"measurements": (measurement(),), "seconds": 0.25}
    parts = {"case": case, "subject": subject, "aspect": aspect, "dtype": dtype, "route": route}
    return graded(Result(verdict=verdict, **{**made, **parts, **fields}))


def report(
    *results: Result, when: str = "2026-02-01T00:00:00Z", facts: Facts = FACTS, problems: tuple[str, ...] = ()
) -> Report:
    counts = [one.verdict for one in results]
    return Report(
        schema=SCHEMA,
        when=when,
        facts=facts,
        conforms=not problems,
        problems=problems,
        timings={"total": 2.5},
        summary={str(verdict): counts.count(verdict) for verdict in Verdict if verdict in counts},
        results=results,
    )
