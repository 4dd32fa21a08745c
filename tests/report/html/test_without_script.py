"""The summary that a browser without scripts shows."""

from __future__ import annotations

import made

from actconform.report.html.without_script import NEW_SHOWN, summary_without_script
from actconform.types import Verdict

KNOWN = {"deviation": "rounds-twice", "regime": "ordinary"}


def test_it_says_the_verdict_what_is_new_and_the_causes_of_what_is_critical():
    results = (
        made.result("relu/value/f32/torch", findings=(made.finding("nan-made"),)),
        made.result("tanh/value/f32/torch", Verdict.CRASH, reason="killed by signal 11"),
        *(
            made.result(f"tanh/value/{dtype}/keras", Verdict.XFAIL, findings=(made.finding("inf", **KNOWN),))
            for dtype in ("f32", "f16")
        ),
        made.result("selu/value/f32/keras", Verdict.XFAIL, findings=(made.finding(deviation="tails"),)),
    )
    text = summary_without_script(made.report(*results, problems=("one new finding",)))
    assert "<h1>✗ Does not conform</h1>" in text
    assert "<li>one new finding</li>" in text
    assert "<h2>New: 2</h2>" in text
    assert text.index("CRASH tanh/value/f32/torch: killed by signal 11") < text.index(
        "NEW critical relu/value/f32/torch"
    )
    assert "<li>rounds-twice: 2 cases</li>" in text
    assert "tails" not in text


def test_a_run_that_conforms_has_nothing_new():
    text = summary_without_script(made.report(made.result()))
    assert "<h1>✓ Conforms</h1>" in text
    assert "<h2>New: 0</h2>" in text


def test_of_very_many_new_cases_the_rest_is_counted():
    results = (made.result(f"k{n}/value/f32/torch", findings=(made.finding(),)) for n in range(NEW_SHOWN + 7))
    assert "<p>and 7 more, in report.json</p>" in summary_without_script(made.report(*results))


def test_names_from_outside_are_no_markup():
    hostile = "<script>alert(1)</script>\x1b"
    result = made.result(f"{hostile.replace('/', '')}/value/f32/torch", Verdict.ERROR, reason=hostile)
    text = summary_without_script(made.report(result, problems=(hostile,)))
    assert "<script" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
