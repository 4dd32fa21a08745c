"""Cases through a runtime's worker, in batches: each case has its own verdict, whatever the others do to the process."""

from __future__ import annotations

import numpy as np
from small_cases import X, small_case

from actconform.suite.batches import answers_of
from actconform.suite.suite_run import run_cases

RIGHT = [np.maximum(X, 0)]


class Keeper:
    def __init__(self):
        self.records, self.notes = [], []

    def add(self, record):
        self.records.append(record)

    def note(self, words):
        self.notes.append(words)


def judged(cases, *runtimes):
    keeper = Keeper()
    run_cases(cases, runtimes, keeper)
    return keeper


def states(keeper):
    return [
        (record.case, verdict.standard, verdict.truth.state)
        for record in keeper.records
        for verdict in record.runtimes.values()
    ]


def test_each_case_has_a_verdict_of_its_own_in_one_batch(suite_runtime):
    names = ("first", "dies", "refuses", "raises", "doubles", "last")
    keeper = judged([small_case(name, expected=RIGHT) for name in names], suite_runtime())
    assert states(keeper) == [
        ("first", "passed", "within"),
        ("dies", "not supported", "crash"),
        ("refuses", "not supported", "refused"),
        ("raises", "not supported", "error"),
        ("doubles", "failed", "outside"),
        ("last", "passed", "within"),
    ]
    assert keeper.notes == []
    verdicts = {record.case: record.runtimes["suite-runtime"] for record in keeper.records}
    assert "SIGKILL" in verdicts["dies"].truth.reason
    assert verdicts["refuses"].truth.reason == "takes no such graph"
    assert "a kernel failed" in verdicts["raises"].truth.reason
    assert (verdicts["doubles"].blame, verdicts["doubles"].truth.worst.got) == ("runtime", 5.0)
    assert [record.data.state for record in keeper.records] == ["within"] * 6


def test_a_case_that_hangs_costs_itself_alone(suite_runtime):
    keeper = judged([small_case(name, expected=RIGHT) for name in ("first", "hangs", "last")], suite_runtime(5.0))
    assert [state for _, _, state in states(keeper)] == ["within", "timeout", "within"]


def test_a_death_that_no_case_repeats_is_noted_and_accuses_none(suite_runtime):
    keeper = judged([small_case(name, expected=RIGHT) for name in ("first", "dies once", "last")], suite_runtime())
    assert [state for _, _, state in states(keeper)] == ["within"] * 3
    assert len(keeper.notes) == 1
    assert "3 cases from first to last" in keeper.notes[0]


def test_shipped_outputs_that_are_wrong_are_blamed_on_the_data(suite_runtime):
    wrong = small_case("wrong data", expected=[np.array([0.0, 0.0, 2.5001], np.float32)])
    both = small_case("doubles", expected=[np.array([0.0, 0.0, 5.0], np.float32)])
    keeper = judged([wrong, both], suite_runtime())
    data, undecided = keeper.records
    assert (data.data.state, data.data.worst.place) == ("outside", (2,))
    assert (data.runtimes["suite-runtime"].standard, data.runtimes["suite-runtime"].truth.state) == ("passed", "within")
    assert undecided.runtimes["suite-runtime"].standard == "passed"
    assert undecided.runtimes["suite-runtime"].blame == "undetermined"


def test_values_of_every_type_reach_the_runtime_and_come_back(suite_runtime):
    cases = [
        small_case("strings", "(string[2] x) => (string[2] y) { y = Identity(x) }", {"x": np.array(["ä", ""], object)}),
        small_case("sequence", "(seq(float[3]) x) => (seq(float[3]) y) { y = Identity(x) }", {"x": [X, X + 1]}),
        small_case(
            "nothing", "(optional(float[3]) x) => (bool y) { y = OptionalHasElement(x) }", {"x": None}, opset=18
        ),
        small_case("scalar", "(float x) => (float y) { y = Neg(x) }", {"x": np.float32(2)}),
    ]
    strings, sequence, nothing, scalar = answers_of(suite_runtime(), cases)
    assert (strings.outputs[0]["y"].tolist(), strings.outputs[0]["y"].dtype) == (["ä", ""], object)
    assert [array.tolist() for array in sequence.outputs[0]["y"]] == [X.tolist(), (X + 1).tolist()]
    assert nothing.outputs[0]["y"].tolist() is False
    assert (scalar.outputs[0]["y"].tolist(), scalar.outputs[0]["y"].shape) == (-2.0, ())


def test_two_runtimes_are_judged_by_one_truth(suite_runtime):
    first, second = suite_runtime(), suite_runtime()
    second.name = "the other"
    keeper = judged([small_case("doubles", expected=RIGHT)], first, second)
    assert list(keeper.records[0].runtimes) == ["suite-runtime", "the other"]
    assert states(keeper) == [("doubles", "failed", "outside")] * 2
