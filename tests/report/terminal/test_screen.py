"""What is printed of a run: cells, findings, counts, verdict; nothing that a plugin says is taken for markup."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from actconform.plugin.loader import Catalog
from actconform.report.reasons import LONGEST, abbreviate
from actconform.report.terminal.screen import CAUSES_SHOWN, NEW_SHOWN, Screen
from actconform.run.scheduler import Plan
from actconform.settings import Config
from actconform.testdata.golden.store import Manifest
from actconform.types import Case, Finding, Interval, Measurement, Result, Verdict, Worst
from actconform.types.cause import Register
from actconform.verdict.severity import graded

NAN, INF = float("nan"), float("inf")


class Printed:
    """A screen and what it printed: as a log, or as a terminal of some width."""

    def __init__(self, width: int = 0) -> None:
        terminal = {"force_terminal": True, "width": width, "color_system": None} if width else {}
        self.file = io.StringIO()
        self.screen = Screen(console=Console(file=self.file, highlight=False, **terminal))

    @property
    def text(self) -> str:
        return self.file.getvalue()

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.text.splitlines()]


@pytest.fixture
def log() -> Printed:
    return Printed()


def result(
    subject: str = "relu",
    verdict: Verdict = Verdict.PASS,
    route: str = "torch",
    dtype: str = "f32",
    findings: tuple[Finding, ...] = (),
    shares: tuple[float, ...] = (),
    **fields,
) -> Result:
    measurements = tuple(
        Measurement(
            tensor="y",
            regime="ordinary",
            n=10,
            max_ulp=1.0,
            max_scaled=8.0 * share,
            bias=0.0,
            limit=8.0,
            margin=1.0,
            histogram=(),
        )
        for share in shares
    )
    made = Result(
        case=f"{subject}/value/{dtype}/{route}",
        subject=subject,
        aspect="value",
        dtype=dtype,
        route=route,
        verdict=verdict,
        findings=findings,
        measurements=measurements,
        **fields,
    )
    return graded(made)


def finding(class_: str, deviation: str | None = None, **fields) -> Finding:
    worst = Worst(input_hex="0x42b17218", index=3, truth=88.72283935546875, got=INF, ulp=5.0, scaled=12.0)
    known = {
        "count": 1,
        "regime": "ordinary",
        "tensor": "y",
        "interval": Interval("0x42b17218", "0x42b17218"),
        "worst": worst,
        "magnitude": 12.0,
        "blame": "framework",
    }
    return Finding(class_=class_, deviation=deviation, **{**known, **fields})


def cells(log: Printed, *results: Result) -> dict[str, list[str]]:
    log.screen.tables(results, dict.fromkeys(one.subject for one in results))
    return {line.split()[0]: line.split()[1:] for line in log.lines if line}


@pytest.mark.parametrize(
    ("results", "cell"),
    [
        ([result(shares=(0.0,))], "0"),
        ([result(shares=(0.001,))], "<1%"),
        ([result(shares=(0.2, 0.413)), result(dtype="f16", shares=(0.3,))], "41%"),
        ([result(shares=(0.25, 1e6))], "25%"),  # an accepted side of a kink
        ([result(verdict=Verdict.XFAIL, findings=(finding("tail", "id"),))], "◦tail"),
        ([result(verdict=Verdict.XFAIL, findings=(finding("scaled-error", "id"),))], "▲scaled-error"),
        ([result(verdict=Verdict.XFAIL, findings=(finding("inf", "id", regime="huge"),))], "△inf"),
        ([result(verdict=Verdict.XFAIL, findings=(finding("zero-sign", "id"),), shares=(0.5,))], "◦50%"),
        ([result(verdict=Verdict.XFAIL, findings=(finding("bias", "id", blame="convention"),))], "◦bias"),
        ([result(verdict=Verdict.FAIL, findings=(finding("tail"),))], "●tail"),
        ([result(verdict=Verdict.FAIL, findings=(finding("scaled-error", "id"), finding("tail")))], "●tail"),
        ([result(verdict=Verdict.FAIL, findings=(finding("tail"), finding("nan-lost")))], "●nan-lost"),
        ([result(shares=(0.5,)), result(verdict=Verdict.XFAIL, findings=(finding("tail", "id"),))], "◦tail"),
        ([result(verdict=Verdict.UNSUPPORTED)], "–"),
        ([result(verdict=Verdict.UNSUPPORTED), result(shares=(0.5,))], "50%"),
        ([result(verdict=Verdict.ERROR), result(verdict=Verdict.FAIL, findings=(finding("tail"),))], "ERROR"),
        ([result(verdict=Verdict.CRASH)], "CRASH"),
        ([result(verdict=Verdict.TIMEOUT)], "TIMEOUT"),
        ([result(verdict=Verdict.XPASS, shares=(0.5,))], "XPASS"),
    ],
)
def test_a_cell_says_the_worst_of_its_cases(log: Printed, results: list[Result], cell: str) -> None:
    assert cells(log, *results)["relu"] == [cell]


def test_the_table_has_kernels_in_their_order_and_a_column_a_route(log: Printed) -> None:
    results = [result("tanh", shares=(0.5,)), result("relu", route="authored+ort-cpu", shares=(0.25,))]
    log.screen.tables(results, ("relu", "elu", "tanh"))
    assert [line.split() for line in log.lines[:2]] == [["authored"], ["torch", "+ort-cpu"]]
    assert [line.split() for line in log.lines[2:4]] == [["relu", "25%"], ["tanh", "50%"]]
    assert log.lines[2].endswith("25%")  # the other cell is empty: not selected is not "not run"
    assert "● NEW, known: ▲ critical, △ major, ◦ minor or by convention; – unsupported" in log.lines[4]


def test_models_have_a_table_of_their_own_with_their_own_routes(log: Printed) -> None:
    results = [
        result("mlp", shares=(0.5,), route="torch@const+ort-cpu"),
        result("mlp", shares=(0.1,)),
        result("relu", shares=(0.25,)),
        result("relu", verdict=Verdict.UNSUPPORTED, route="keras"),
    ]
    log.screen.tables(results, ("relu", "tanh"), ("mlp", "cnn"))
    rows = [line.split() for line in log.lines]
    assert rows[:2] == [["torch"], ["relu", "25%"]]  # keras refused, and torch did not
    assert rows[2:6] == [["torch"], ["@const"], ["+ort-cpu", "torch"], ["mlp", "50%", "10%"]]
    assert log.text.count("▲ critical") == 1
    assert log.lines[6].startswith("a cell is the worst error")


def test_a_group_of_which_nothing_was_selected_has_no_table(log: Printed) -> None:
    log.screen.tables([result("mlp", shares=(0.5,))], ["relu"], ["mlp"])
    assert [line.split() for line in log.lines[:2]] == [["torch"], ["mlp", "50%"]]
    assert "▲ critical" in log.lines[2]


@pytest.mark.parametrize("width", [60, 100, 400])
def test_no_column_is_lost_where_the_table_is_wider_than_the_screen(width: int) -> None:
    routes = ["keras", "torch", *(f"{exporter}+ort-cpu" for exporter in ("authored", "tf2onnx", "torch-dynamo@const"))]
    results = [
        result(subject, shares=((at + 1) / 100,), route=route)
        for subject in ("regression-softmax-hidden@training", "mlp")
        for at, route in enumerate(routes)
    ]
    terminal = Printed(width)
    terminal.screen.tables(results, ["mlp", "regression-softmax-hidden@training"])
    shown = [line.split() for line in terminal.lines]
    for subject in ("mlp", "regression-softmax-hidden@training"):
        assert [cell for row in shown if row[:1] == [subject] for cell in row[1:]] == ["1%", "2%", "3%", "4%", "5%"]
    assert all(terminal.text.count(name) == 1 for name in ("keras", "authored", "torch-dynamo", "@const"))
    assert "…" not in terminal.text
    assert len([row for row in shown if row[:1] == ["mlp"]]) == {60: 3, 100: 1, 400: 1}[width]


def test_a_route_of_which_nothing_ran_has_no_column_but_a_case_that_did_not_has_its_mark(log: Printed) -> None:
    missing = result("relu", route="authored+ort-cuda", verdict=Verdict.UNAVAILABLE)
    found = cells(log, result("relu", shares=(0.5,)), result("tanh", verdict=Verdict.UNAVAILABLE), missing)
    assert found["relu"] == ["50%"]
    assert found["tanh"] == ["?"]


def test_nothing_is_printed_of_no_results(log: Printed) -> None:
    log.screen.tables([], ["relu"], ["mlp"])
    log.screen.findings([])
    assert log.text == ""


def test_the_header_has_each_version_once(log: Printed) -> None:
    plan = Plan(
        cases=[Case("relu", "value", "f32", "a"), Case("relu", "value", "f32", "b")],
        catalog=Catalog({}, {}, {}, {}, Register(), (), (), {}, {}),
        config=Config(),
        folder=Path(),
        manifest=Manifest(schema=1, files={}, subjects={}),
        register=Register(),
    )
    facts = {
        "ort-cpu": {"onnxruntime": "1.31.1", "cpu_capability": "AVX512"},
        "ort-cuda": {"onnxruntime": "1.31.1", "threads": "1"},
        "torch": {"torch": "2.13.0", "cpu_capability": "AVX512"},
        "torch-old": {"torch": "[b]2.12[/]", "cpu_capability": "AVX2"},
        "dead": {},
    }
    log.screen.header(facts, plan)
    assert log.lines == [
        "torch 2.13.0 · torch [b]2.12[/] · onnxruntime 1.31.1 · AVX512 · AVX2 · goldens of 1 subject verified"
    ]


def test_a_new_finding_has_case_class_blame_worst_and_command(log: Printed) -> None:
    log.screen.findings([result("softplus", Verdict.FAIL, findings=(finding("inf"), finding("tail", "known-id")))])
    assert log.lines == [
        "NEW critical  softplus/value/f32/torch   inf   blame: framework",
        "     x=0x42b17218 (88.7228)   truth 88.7228394   got inf",
        "     actconform run softplus/value/f32/torch --out conform-case",
    ]


def test_a_new_finding_of_a_model_says_where_to_look_first_and_names_its_tensors(log: Printed) -> None:
    findings = (
        finding("scaled-error", tensor="dense3"),
        finding("shape", tensor="y", worst=None, evidence="[1], expected [2]"),
    )
    reason = "2 of 2 findings not registered: scaled-error, shape; first layer over its bound: dense3 (12 times); top-1 agrees 1/4"
    log.screen.findings([result("mlp", Verdict.FAIL, findings=findings, reason=reason)], ["mlp"])
    assert log.lines[1:4] == [
        "     first layer over its bound: dense3 (12 times); top-1 agrees 1/4",
        "     shape          y: [1], expected [2]",
        "     scaled-error   dense3: truth 88.7228394   got inf   error 12 (limit 0)",
    ]


def test_another_tensor_than_the_usual_one_is_named_of_kernels_too(log: Printed) -> None:
    log.screen.findings([result("prelu", Verdict.FAIL, findings=(finding("inf", tensor="d_slope"),))])
    assert log.lines[1].startswith("     d_slope: x=0x42b17218 (88.7228)   truth")


def test_findings_of_one_kind_in_several_regimes_are_one_line_with_the_gravest(log: Printed) -> None:
    worst = Worst(input_hex="0xc0000000", index=0, truth=0.5, got=0.25, ulp=9.0, scaled=3.0)
    findings = (
        finding("tail", magnitude=5.0, count=1000),
        finding("tail", magnitude=70.0, count=234, regime="edge"),
        finding("tail", magnitude=9.0, regime="edge", worst=worst, blame="convention"),
        finding("scaled-error", magnitude=12.0, regime="ordinary"),
        finding("nondeterministic", worst=None, evidence="seen in 1 of 71 calls"),
    )
    log.screen.findings([result("gelu", Verdict.FAIL, findings=findings, shares=(2.0,))])
    assert log.lines == [
        "NEW critical  gelu/value/f32/torch   nondeterministic, scaled-error, tail   blame: framework",
        "     nondeterministic   seen in 1 of 71 calls",
        "     scaled-error       x=0x42b17218 (88.7228)   truth 88.7228394   got inf   error 12 (limit 8)   minor",
        "     tail               x=0x42b17218 (88.7228)   truth 88.7228394   got inf   70 ULP   1,234 elements   minor",
        "     tail               x=0xc0000000 (-2)   truth 0.5   got 0.25   9 ULP   blame: convention",
        "     actconform run gelu/value/f32/torch --out conform-case",
    ]


def test_more_kinds_and_cases_than_have_room_are_counted(log: Printed) -> None:
    many = tuple(finding("tail", tensor=f"d_{n}") for n in range(6))
    log.screen.findings([result(f"k{n}", Verdict.FAIL, findings=many) for n in range(NEW_SHOWN + 7)])
    assert log.text.count("NEW minor  ") == NEW_SHOWN
    assert "     … and 2 more\n" in log.text
    assert log.lines[-1] == "     … and 7 more cases with new findings (7 minor), in report.json"


def test_the_gravest_new_case_comes_first_and_a_graver_known_finding_counts_for_nothing(log: Printed) -> None:
    log.screen.findings(
        [
            result("hidden", Verdict.FAIL, findings=(finding("inf", "known-id"), finding("zero-sign"))),
            result("small", Verdict.FAIL, findings=(finding("tail"),)),
            result("special", Verdict.FAIL, findings=(finding("tail"), finding("nan-made", regime="special"))),
            result("wrong", Verdict.FAIL, findings=(finding("tail"), finding("scaled-error", magnitude=1e3))),
            result("agreed", Verdict.FAIL, findings=(finding("nan-made", blame="convention"),)),
        ]
    )
    new = [line.split()[:3] for line in log.lines if line.startswith("NEW")]
    assert new == [
        ["NEW", "critical", "wrong/value/f32/torch"],
        ["NEW", "major", "special/value/f32/torch"],
        ["NEW", "minor", "small/value/f32/torch"],
        ["NEW", "convention", "agreed/value/f32/torch"],
        ["NEW", "convention", "hidden/value/f32/torch"],
    ]


def test_what_is_known_and_minor_or_a_convention_is_dim_and_what_is_critical_or_new_is_not() -> None:
    def styles(*findings: Finding) -> str:
        file = io.StringIO()
        screen = Screen(console=Console(file=file, force_terminal=True, color_system="standard", width=80))
        screen.tables([result(findings=findings, shares=(0.5,))], ["relu"])
        return next(line for line in file.getvalue().splitlines() if line.lstrip().startswith("relu"))

    dim, yellow, red = "\x1b[2m", "\x1b[33m", "\x1b[1;31m"
    for quiet in (finding("tail", "id"), finding("zero-sign", "id"), finding("nan-made", "id", blame="convention")):
        assert dim in styles(quiet)
        assert red not in styles(quiet) + styles(quiet, finding("inf", "id"))
        assert red in styles(quiet, finding("tail"))
    assert yellow in styles(finding("tail", "id"), finding("inf", "id"))
    assert not {part for part in (dim, yellow, red) if part in styles(finding("inf", "id", regime="special"))}


def test_markup_in_names_and_reasons_is_shown_as_it_is(log: Printed) -> None:
    odd = "[red]x[/]"
    bad = [
        result(odd, Verdict.FAIL, route=odd, findings=(finding("tail", worst=None, evidence=odd),)),
        result(odd, Verdict.CRASH, route="[/]", reason=f"died: {odd}"),
        result(odd, Verdict.UNAVAILABLE, route=odd, reason="[/] missing"),
    ]
    log.screen.tables(bad, [odd])
    log.screen.findings(bad)
    log.screen.timings([result(odd, route=odd, timings={"run": 1.0})], {}, {"total": 1.0, "record": 0.0})
    log.screen.verdict(bad, [odd], Path("[b]out[/]"), 1.0, interrupted=False)
    assert log.lines[1].split()[0] == odd
    assert f"NEW minor  {odd}/value/f32/{odd}   tail   blame: framework" in log.lines
    assert f"     actconform run '{odd}/value/f32/{odd}' --out conform-case" in log.lines
    assert f"     died: {odd}" in log.lines
    assert "1 not run: [red]x[/] ([/] missing)" in log.text
    assert f"✗ {odd}" in log.lines
    assert "[b]out[/]/report.json" in log.text


def test_the_verdict_counts_everything(log: Printed) -> None:
    cuda = (
        "no driver: libcuda.so.1 missing: install the driver, in a container too; libcudnn.so.9 missing: pip install x"
    )
    results = [result() for _ in range(1012)]
    results += [result(verdict=Verdict.XFAIL), result(verdict=Verdict.UNSUPPORTED)]
    results += [result(verdict=Verdict.UNAVAILABLE, route="authored+ort-cuda", reason=cuda) for _ in range(14)]
    log.screen.verdict(results, [], Path("out"), 3.21, interrupted=False)
    assert log.lines == [
        "1,012 pass · 1 known · 1 unsupported · 14 not run: authored+ort-cuda (no driver: libcuda.so.1 missing)",
        "CONFORMS     out/report.json     3.2s",
    ]


def test_the_counts_are_by_the_severity_of_the_gravest_finding(log: Printed) -> None:
    known = [(finding("tail", "id"), finding("inf", "id")), (finding("tail", "id"),), (finding("tail", "id"),)]
    results = [result(verdict=Verdict.XFAIL, findings=findings) for findings in known]
    results.append(result(verdict=Verdict.FAIL, findings=(finding("zero-sign"), finding("inf", "id"))))
    log.screen.verdict(results, ["1 FAIL"], Path("out"), 1.0, interrupted=False)
    assert log.lines[0] == "0 pass · 3 known (1 critical, 2 minor) · 1 NEW (1 convention)"


def test_critical_known_findings_are_a_line_for_each_cause(log: Printed) -> None:
    results = [
        result(
            f"k{n}", Verdict.XFAIL, dtype=dtype, findings=(finding("inf", f"cause-{n:02}"), finding("tail", "tails"))
        )
        for n in range(CAUSES_SHOWN + 2)
        for dtype in ("f32", "f16")[: 2 if n == 3 else 1]
    ]
    log.screen.causes(results)
    assert log.lines[0] == f"known, critical: {CAUSES_SHOWN + 3} cases, by cause (and blame):"
    assert log.lines[1] == "  ▲   2 cause-03  inf (framework)"
    assert log.lines[2] == "  ▲   1 cause-00  inf (framework)"
    assert log.lines[-1] == "  … and 2 more causes, in index.html"
    assert "tails" not in log.text


def test_nothing_is_printed_where_no_known_finding_is_critical(log: Printed) -> None:
    log.screen.causes(
        [result(verdict=Verdict.XFAIL, findings=(finding("tail", "tails"),)), result(findings=(finding("inf"),))]
    )
    assert log.text == ""


@pytest.mark.parametrize(
    ("results", "first"),
    [
        ([result("a", Verdict.FAIL, findings=(finding("inf"),))], None),
        (
            [
                result("a", Verdict.FAIL, findings=(finding("tail"),)),
                result("b", Verdict.FAIL, findings=(finding("inf"),)),
                result("c", Verdict.XFAIL, findings=(finding("inf", "id"),)),
            ],
            "look first at b/value/f32/torch: NEW, critical, inf, blame: framework",
        ),
        (
            [result("a", Verdict.FAIL, findings=(finding("inf"),)), result("b", Verdict.CRASH, reason="killed")],
            "look first at b/value/f32/torch: CRASH",
        ),
    ],
)
def test_of_several_bad_cases_the_last_lines_name_the_first_to_look_at(
    log: Printed, results: list[Result], first: str | None
) -> None:
    log.screen.verdict(results, ["not as it should be"], Path("out"), 1.0, interrupted=False)
    assert log.lines[-1].startswith("DOES NOT CONFORM")
    assert (log.lines[-2] if first else None) == first
    assert ("look first" in log.text) == (first is not None)


def test_what_gave_no_answer_is_told_once_for_each_reason(log: Printed) -> None:
    died = "the worker was killed; its last words:\n" + "\n".join(f"  line {n}" for n in range(9))
    results = [result(f"k{n}", Verdict.CRASH, reason=died) for n in range(3)]
    results.append(result("elu", Verdict.TIMEOUT, reason="no answer in 2 s"))
    log.screen.verdict(results, ["3 CRASH, 1 TIMEOUT"], Path("out"), 291.4, interrupted=True)
    assert log.lines == [
        "CRASH  3 cases, k0/value/f32/torch the first",
        "     the worker was killed; its last words:",
        "       line 0",
        "       line 1",
        "       line 2",
        "TIMEOUT  elu/value/f32/torch",
        "     no answer in 2 s",
        "0 pass · 3 CRASH · 1 TIMEOUT",
        "✗ 3 CRASH, 1 TIMEOUT",
        "interrupted: the results until then are kept",
        "look first at k0/value/f32/torch: CRASH",
        "DOES NOT CONFORM     out/report.json     4m51s",
    ]


def test_seconds_never_read_sixty(log: Printed) -> None:
    for seconds in (59.94, 59.96, 60.0, 119.7):
        log.screen.verdict([], [], Path("out"), seconds, interrupted=False)
    assert [line.split()[-1] for line in log.lines if "CONFORMS" in line] == ["59.9s", "1m00s", "1m00s", "2m00s"]


def test_timings_are_by_backend_and_all_that_is_not_the_backends_is_the_harness(log: Printed) -> None:
    spent = {"compare": 1.0, "draw": 0.5, "run": 2.0, "build": 0.25, "export": 0.25, "checks": 0.5}
    results = [
        result(timings=spent, seconds=5.0),
        result(dtype="f16", timings=spent, seconds=5.0),
        result(route="torch-dynamo@const+ort-cpu@v", timings={"run": 1.0, "blame": 2.0}, seconds=3.5),
        result(route="tf2onnx+ort-cpu", verdict=Verdict.UNSUPPORTED, stage="export", seconds=4.0),
        result(route="tf2onnx+ort-cpu", verdict=Verdict.CRASH, stage="load", seconds=2.0),
        result(route="dead", verdict=Verdict.UNAVAILABLE, stage="load"),
    ]
    log.screen.timings(results, {"ort-cpu": 0.75, "torch": 3.0}, {"total": 11.0, "record": 0.125})
    rows = [line.split() for line in log.lines]
    assert rows[0] == ["seconds", "import", "export", "compile", "run", "compare", "harness"]
    assert rows[1:4] == [
        ["ort-cpu", "0.75", "4.00", "2.00", "1.00", "0.00", "2.50"],
        ["torch", "3.00", "0.50", "0.50", "4.00", "2.00", "3.00"],
        ["dead", *["0.00"] * 6],
    ]
    assert log.lines[4] == "total 11.00: backends run side by side · record 0.12"


def test_a_log_keeps_long_lines_whole_and_a_terminal_indents_what_wraps() -> None:
    words = " ".join(f"word{n}" for n in range(60))
    bad = [result(verdict=Verdict.ERROR, reason=words)]
    log, terminal = Printed(), Printed(width=60)
    for printed in (log, terminal):
        printed.screen.verdict(bad, [], Path("out"), 1.0, interrupted=False)
    assert f"     {words}" in log.lines
    wrapped = terminal.lines[1 : terminal.lines.index("0 pass · 1 ERROR")]
    assert len(wrapped) > 5
    assert all(line.startswith("     word") and len(line) <= 60 for line in wrapped)
    assert " ".join(line.strip() for line in wrapped) == words


def test_a_route_that_refuses_everything_says_so(log: Printed) -> None:
    refused = [result(subject, Verdict.UNSUPPORTED, "myrt", reason="no device") for subject in ("relu", "elu")]
    one = result("elu", Verdict.UNSUPPORTED, "torch", reason="has none")
    log.screen.verdict([*refused, one, result("relu")], [], Path("out"), 1.0, interrupted=False)
    assert "myrt: every case is unsupported: no device" in log.lines
    assert "has none" not in log.text


def test_a_line_within_a_problem_begins_no_line_of_its_own(log: Printed) -> None:
    log.screen.verdict([], ["it broke\n::error::forged\u202e"], Path("out"), 1.0, interrupted=False)
    assert r"    \x3a:error::forged\u202e" in log.lines


def test_the_command_to_copy_is_never_broken() -> None:
    terminal = Printed(width=30)
    terminal.screen.findings([result("hard-sigmoid-relu6", Verdict.FAIL, findings=(finding("inf"),))])
    assert "     actconform run hard-sigmoid-relu6/value/f32/torch --out conform-case" in terminal.lines


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (
            "no driver: libcuda.so.1 missing: install it (docker run --gpus all); more",
            "no driver: libcuda.so.1 missing",
        ),
        ("torch is not installed: pip install actconform[torch]", "torch is not installed"),
        ("it is the CPU package: pip uninstall onnxruntime, then", "it is the CPU package"),
        ("the worker was killed; its last words:\n  line", "the worker was killed"),
        ("ImportError: libfoo.so.1 (at /a/b.py:12: import foo)", "ImportError: libfoo.so.1"),
        ("one line\nanother", "one line"),
        ("", ""),
    ],
)
def test_a_brief_reason_is_the_first_cause_without_its_mend(reason: str, cause: str) -> None:
    assert abbreviate(reason) == cause


def test_a_brief_reason_is_short() -> None:
    assert len(abbreviate("x" * 500)) == LONGEST
    assert abbreviate("x" * 500).endswith("…")
