"""What is selected to be timed, and what is refused."""

from __future__ import annotations

import pytest

from actconform.bench.workloads import DEFAULT_KERNELS, DEFAULT_MODELS, chosen, numbers, shown, workloads
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.run.select import Selection

CATALOG = load_plugins()


def test_by_default_the_named_subjects_on_all_routes():
    found = chosen(CATALOG, Selection())
    assert set(found) == {*DEFAULT_KERNELS, *DEFAULT_MODELS}
    assert {"torch", "keras", "authored+ort-cpu", "tf2onnx+ort-cpu"} <= set(found["relu"])
    assert "tf2onnx@const+ort-cpu" in found["mlp-relu"]
    assert not any("@const" in route for route in found["relu"])
    assert not any("faulty" in route for routes in found.values() for route in routes)


def test_full_adds_the_published_sizes_of_the_same_models():
    added = set(chosen(CATALOG, Selection(), full=True)) - set(chosen(CATALOG, Selection()))
    assert added == {f"{name}@published" for name in DEFAULT_MODELS}


def test_patterns_select_among_all_subjects():
    found = chosen(CATALOG, Selection(patterns=("el*/throughput/f32/torch", "maxout-mlp/*"), backends=("torch",)))
    assert found == {"elu": ["torch"], "elu-half": ["torch"], "maxout-mlp": ["torch"]}
    assert "mlp-relu@published" in chosen(CATALOG, Selection(patterns=("mlp-relu@published/*",)), full=True)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("gelu-erv/*", "'gelu-erv'; did you mean gelu-erf"),
        ("relu/value/f32/torch", "SUBJECT/throughput/f32/ROUTE"),
        ("relu/throughput/f32/torhc", "did you mean torch"),
        ("mlp-relu@published/*", "--full"),
        ("relu", "SUBJECT/throughput/f32/ROUTE"),
    ],
)
def test_a_pattern_of_nothing_is_refused(pattern, said):
    with pytest.raises(UsageError) as raised:
        chosen(CATALOG, Selection(patterns=(pattern,)))
    assert said in str(raised.value)
    assert repr(pattern) in str(raised.value)


def test_an_unknown_route_is_refused():
    with pytest.raises(UsageError, match="unknown route 'trch'"):
        chosen(CATALOG, Selection(routes=("trch",)))


def test_trials_are_directions_by_sizes():
    assert [one.id for one in workloads(CATALOG, "relu", [1, 2], [7])] == [
        "relu forward 1",
        "relu forward 2",
        "relu forward+backward 1",
        "relu forward+backward 2",
    ]
    assert [one.id for one in workloads(CATALOG, "argmax", [4], [7])] == ["argmax forward 4"]
    assert [one.size for one in workloads(CATALOG, "mlp-relu", [1], [7])] == [7, 7]


def test_a_trial_stands_on_the_case_of_its_direction():
    forward, backward = workloads(CATALOG, "relu", [1], [])
    assert forward.case("torch").id == "relu/value/f32/torch"
    assert backward.case("torch").id == "relu/gradient/f32/torch"


@pytest.mark.parametrize(
    ("text", "found"), [("1K,1M,16M", [1 << 10, 1 << 20, 1 << 24]), ("3, 2k,3", [3, 2048]), ("1g", [1 << 30])]
)
def test_sizes_are_read(text, found):
    assert numbers("--size", text) == found


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5K", "1,,2", "1T", "many", "1000000000000000"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="--size"):
        numbers("--size", text)


@pytest.mark.parametrize("text", ["1", "1000", "1K", "3K", "1M", "16M", "1G", "1025"])
def test_sizes_are_shown_as_they_are_read(text):
    assert shown(numbers("--size", text)[0]) == text
