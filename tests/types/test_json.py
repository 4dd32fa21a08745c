"""JSON without numbers that JSON has not."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from actconform.types import Result, Verdict
from actconform.types.json import finite

NUMBERS = st.recursive(
    st.one_of(st.floats(), st.integers(-5, 5), st.text(max_size=3), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)


@settings(deadline=None, max_examples=60)
@given(NUMBERS)
def test_what_is_made_finite_is_json_and_nothing_else_is_changed(value: object):
    text = json.dumps(finite(value), allow_nan=False)
    again = json.loads(text)
    assert again == json.loads(json.dumps(finite(again)))
    if not any(not math.isfinite(number) for number in _floats(value)):
        assert again == value


def _floats(value: object) -> list[float]:
    if isinstance(value, float):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [number for item in inner for number in _floats(item)]


def test_non_finite_numbers_are_words():
    assert finite({"a": [math.nan, (math.inf, -math.inf)], "b": -0.0}) == {"a": ["nan", ["inf", "-inf"]], "b": 0.0}
    result = Result(
        case="a/value/f32/b",
        subject="a",
        aspect="value",
        dtype="f32",
        route="b",
        verdict=Verdict.PASS,
        seconds=math.inf,
    )
    assert finite(result)["seconds"] == "inf"
    assert finite(result)["verdict"] == "PASS"
