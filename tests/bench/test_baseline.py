"""The baseline: an injected slowdown is called and a repeat is not; what is noisy or of other facts gates nothing."""

from __future__ import annotations

import msgspec
import pytest

from actconform.bench.baseline import baseline_of, compare, confirmed, read, save
from actconform.bench.intervals import ConfidenceInterval
from actconform.errors import UsageError

PLAIN = {"torch": 1e-3, "keras": 3e-3}


def changes(comparison):
    assert not comparison.differing
    return {one.route: one.change for one in comparison.judgements}


def slower(route, times):
    return PLAIN | {route: PLAIN[route] * times}


def test_a_repeat_is_not_called(timed):
    old = baseline_of(timed(PLAIN))
    for seed in range(1, 30):
        assert changes(compare(old, timed(PLAIN, seed=seed, noise=0.1))) == {"torch": "same", "keras": "same"}


@pytest.mark.parametrize("route", PLAIN)
def test_an_injected_slowdown_is_called_and_no_other_route_with_it(timed, route):
    old = baseline_of(timed(PLAIN))
    for seed in range(1, 30):
        found = compare(old, timed(slower(route, 1.5), seed=seed, noise=0.1))
        assert changes(found) == {"torch": "same", "keras": "same"} | {route: "slower"}
        assert [one.route for one in found.slower] == [route]
        assert "times the baseline" in found.slower[0].words


def test_what_is_slower_once_and_not_again_is_noise(timed):
    old, slow = baseline_of(timed(PLAIN)), compare(baseline_of(timed(PLAIN)), timed(slower("keras", 1.5), seed=1))
    again = compare(old, timed(slower("keras", 1.5), seed=2))
    assert [one.route for one in confirmed(slow, again).slower] == ["keras"]
    calmed = confirmed(slow, compare(old, timed(PLAIN, seed=2)))
    assert changes(calmed) == {"torch": "same", "keras": "noisy"}
    assert "but in a new process" in calmed.judgements[1].words


def test_what_becomes_faster_is_said_and_slows_no_other(timed):
    found = compare(baseline_of(timed(PLAIN)), timed(slower("torch", 0.5), seed=1))
    assert changes(found) == {"torch": "faster", "keras": "same"}  # although keras is now 6 times torch, and was 3
    assert found.slower == []


@pytest.mark.parametrize("times", [1.1, 1.19])
def test_under_the_threshold_nothing_is_called(timed, times):
    found = compare(baseline_of(timed(PLAIN)), timed(slower("keras", times), seed=2, noise=0.0, copy_noise=0.0))
    assert changes(found)["keras"] == "same"


def test_a_slower_machine_is_no_regression(timed):
    slow = {route: 2 * seconds for route, seconds in PLAIN.items()}
    assert set(changes(compare(baseline_of(timed(PLAIN)), timed(slow, copy=2e-3))).values()) == {"same"}


@pytest.mark.parametrize("noisy", [{"noise": 2.0}, {"copy_noise": 2.0}])
@pytest.mark.parametrize("when", ["then", "now"])
def test_noise_gates_nothing_and_says_so(timed, noisy, when):
    then, now = (noisy, {}) if when == "then" else ({}, noisy)
    found = compare(baseline_of(timed(PLAIN, **then)), timed({"torch": 9e-3, "keras": 27e-3}, seed=1, **now))
    assert set(changes(found).values()) == {"noisy"}
    assert found.slower == []
    assert all("noisy" in one.words or "varied" in one.words or "wide" in one.words for one in found.judgements)


def test_what_slows_all_routes_but_not_the_calibration_is_laid_to_the_reference_alone(timed):
    slow = {route: 2 * seconds for route, seconds in PLAIN.items()}
    assert changes(compare(baseline_of(timed(PLAIN)), timed(slow, seed=1))) == {"torch": "slower", "keras": "same"}


def test_a_calibration_that_drifts_with_the_routes_gates_nothing_either(timed):
    made = timed(slower("torch", 9.0))
    wide = ConfidenceInterval(1e-3, 1e-3, 1.3e-3)
    (one,) = made.measured
    one = msgspec.structs.replace(one, calibration=msgspec.structs.replace(one.calibration, seconds=wide))
    found = compare(baseline_of(timed(PLAIN)), msgspec.structs.replace(made, measured=[one]))
    assert set(changes(found).values()) == {"noisy"}
    assert "the calibration itself varied by 1.30 times" in found.judgements[0].words


def test_a_new_route_is_new(timed):
    found = compare(baseline_of(timed({"torch": 1e-3})), timed(PLAIN))
    assert changes(found) == {"torch": "same", "keras": "new"}


MACHINE = {"cpu": "another", "capability": "AVX512", "threads": 2, "affinity": (0, 1, 2)}


@pytest.mark.parametrize("fact", MACHINE)
def test_another_machine_is_not_compared(timed, fact):
    old, new = timed(PLAIN), timed(slower("torch", 9.0))
    new = msgspec.structs.replace(new, machine=msgspec.structs.replace(new.machine, **{fact: MACHINE[fact]}))
    found = compare(baseline_of(old), new)
    assert found.judgements == []
    assert len(found.differing) == 1
    assert {"affinity": "processors was 2, is 3"}.get(fact, f"{fact} was ") in found.differing[0]


def test_another_version_is_not_compared_and_the_kernel_of_the_system_does_not_count(timed):
    old = baseline_of(timed(PLAIN))
    facts = {"calibration": {"numpy": "2.0"}, "torch": {"torch": "2.14", "platform": "Linux-6.2"}}
    found = compare(old, timed(slower("torch", 9.0), facts=facts))
    assert (found.differing, found.judgements) == (["torch torch was 2.13, is 2.14"], [])
    same = {"calibration": {"numpy": "2.0"}, "torch": {"torch": "2.13", "platform": "Linux-6.2"}}
    assert changes(compare(old, timed(PLAIN, facts=same)))


def test_an_update_keeps_what_was_not_measured_as_long_as_facts_hold(timed):
    old = baseline_of(timed(PLAIN))
    merged = baseline_of(timed({"torch": 5e-3}, subject="tanh"), old)
    assert [(one.workload.subject, one.route) for one in merged.entries] == [
        ("relu", "keras"),
        ("relu", "torch"),
        ("tanh", "torch"),
    ]
    other = {"calibration": {"numpy": "3.0"}, "torch": {"torch": "2.13"}}
    fresh = baseline_of(timed({"torch": 5e-3}, subject="tanh", facts=other), old)
    assert [one.workload.subject for one in fresh.entries] == ["tanh"]
    assert "keras" not in fresh.facts


def test_an_update_keeps_the_reference(timed):
    old = baseline_of(timed(PLAIN))
    assert {one.reference for one in old.entries} == {"torch"}
    swapped = baseline_of(timed({"torch": 9e-3, "keras": 3e-3}), old)
    assert {one.reference for one in swapped.entries} == {"torch"}
    assert next(one for one in swapped.entries if one.route == "torch").to_reference == ConfidenceInterval(
        1.0, 1.0, 1.0
    )


def test_what_is_saved_is_read(timed, tmp_path):
    path = tmp_path / "throughput.json"
    kept = baseline_of(timed(PLAIN))
    save(path, kept)
    assert read(path) == kept
    assert [entry.name for entry in tmp_path.iterdir()] == ["throughput.json"]
    assert read(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not a baseline"),
        ("[1]", "not a baseline"),
        ('{"schema": 1, "results": []}', "not a baseline"),
        ('{"what": "a bill", "schema": 1}', "'a bill'"),
        (
            '{"what": "actconform throughput", "schema": 2, "ratios": {}}',
            "schema 2, but this actconform reads schema 1",
        ),
        ('{"what": "actconform throughput", "schema": 1}', "not a baseline"),
    ],
)
def test_what_is_no_baseline_is_refused_and_left(tmp_path, content, said):
    path = tmp_path / "throughput.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="nothing was overwritten") as raised:
        read(path)
    assert said in str(raised.value)
    assert path.read_text() == content


def test_a_folder_is_no_baseline(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path)
