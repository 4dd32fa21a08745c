"""The arguments of a call as source: what it says is what was given, and what no source can say is refused."""

from __future__ import annotations

import pytest

from actconform import Unsupported
from actconform.plugin.call_source import call_source, called_path

CALLS = [
    ((), {}),
    ((1, -2.5, "a'\"\n", None, True), {"flag": False}),
    (((1,), (), [2, (3.0, "x")], {"a b": [None], 3: ()}), {"limits": (float("inf"), float("-inf"))}),
]


def captured(*args, **kwargs):
    return args, kwargs


@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_the_source_gives_the_arguments_again(args, kwargs):
    source = call_source(args, kwargs, lambda _: None)
    assert eval(f"captured({source})", {"captured": captured}) == (args, kwargs)  # noqa: S307  of our own making


def test_tensors_are_named_wherever_they_stand():
    first, second = object(), object()
    names = {id(first): "input_0", id(second): "input_1"}
    source = call_source(([first], 2), {"mask": {"key": second}}, lambda value: names.get(id(value)))
    assert source == "[input_0], 2, mask={'key': input_1}"


@pytest.mark.parametrize(
    ("args", "kwargs"), [((object(),), {}), ((), {"no name": 1}), ((), {"class": 1}), (({1},), {})]
)
def test_what_no_source_can_say_is_refused(args, kwargs):
    with pytest.raises(Unsupported, match="a program cannot write"):
        call_source(args, kwargs, lambda _: None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("enc", ("enc", 1)),
        ("enc.norm#3", ("enc.norm", 3)),
        ("enc:gelu", ("enc", 1)),
        ("enc:gelu#2", ("enc", 1)),
        ("encoder", ("", 1)),
        ("enc.norm.x", ("", 1)),
        ("", ("", 1)),
        ("a#b#2", ("a#b", 2)),
    ],
)
def test_the_longest_path_that_a_record_begins_with_is_its_layer_and_the_number_its_call(name, expected):
    assert called_path(name, ["", "enc", "enc.norm", "a", "a#b"]) == expected
