"""The register of faults: each is well formed, says what must be found in words of actconform's, and concerns cases there are."""

from __future__ import annotations

from collections import Counter

import pytest

from actconform.plugin.loader import load_plugins
from actconform.run.select import all_cases
from actconform.types import CONSTANTS, Verdict
from actconform_faulty import FaultyExport, FaultyOrt, FaultyTorch, plugin
from actconform_faulty.injected import BACKENDS, INJECTED, ROOMS, UNUSUAL, fault

REGISTERED = {one.name: one for one in plugin.actconform_faults()}
FAULTS = {name: one for name, one in REGISTERED.items() if not one.healthy}
HEALTHY = {name: one for name, one in REGISTERED.items() if one.healthy}
CLASSES = {
    "scaled-error",
    "tail",
    "bias",
    "nan-lost",
    "nan-made",
    "inf",
    "zero-sign",
    "subnormal-flush",
    "kink",
    "range",
    "position-dependent",
    "nondeterministic",
    "mutates-input",
    "memory-growth",
    "placement",
    "names",
    "shape",
    "dtype",
    "invalid-model",
    "property",
}
BLAMES = {"framework", "exporter", "runtime", "convention"}  # nobody injects what is to be blamed on our own adapter
ENDS = {Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR}
BY_NAME = pytest.mark.parametrize("name", FAULTS)


@BY_NAME
def test_a_fault_says_what_must_be_found(name: str) -> None:
    one = FAULTS[name]
    assert one.family
    assert one.what
    assert set(one.findings) <= CLASSES
    assert set(one.blames) <= BLAMES
    assert bool(one.findings) == bool(one.blames) == (one.verdict == "FAIL")
    assert one.findings or Verdict(one.verdict) in ENDS
    assert one.findings or not one.tensor


@BY_NAME
def test_who_is_to_blame_is_who_holds_the_fault(name: str) -> None:
    holder = {"torch": "framework", "ort": "runtime", "export": "exporter"}[INJECTED[name].into]
    assert set(FAULTS[name].blames) <= {holder, "convention"}
    assert set(FAULTS[name].blames) != {"convention"} or set(FAULTS[name].findings) == {"zero-sign"}


def test_every_fault_concerns_cases_that_there_are() -> None:
    known = {case.id for case in all_cases(load_plugins(), selected=set(FAULTS))}
    for one in FAULTS.values():
        assert one.cases
        assert set(one.cases) <= known, one.name
        for case in one.cases:
            assert one.name in [part.removesuffix(CONSTANTS) for part in case.rpartition("/")[2].split("+")]


def test_graphs_as_users_ship_them_have_faults_of_exporters_and_of_runtimes() -> None:
    shipped = [one for one in FAULTS.values() if all(f"{CONSTANTS}+" in case for case in one.cases)]
    assert {INJECTED[one.name].into for one in shipped} == {"export", "ort"}
    assert len(shipped) >= 10


def test_a_name_is_a_variant_of_the_backend_or_exporter_that_holds_it() -> None:
    names = [f"{one.name}@{variant}" for one in (FaultyTorch, FaultyOrt, FaultyExport) for variant in one.variants]
    assert sorted(names) == sorted(FAULTS)
    assert len(set(names)) == len(names)
    assert {name.partition("@")[0] for name in names} == set(BACKENDS.values())


def test_what_is_healthy_says_what_is_unusual_and_concerns_cases_that_there_are() -> None:
    cases = {case.id for case in all_cases(load_plugins(), selected=set(HEALTHY))}
    assert len(HEALTHY) >= 60
    for one in HEALTHY.values():
        assert one.what
        assert one.cases
        assert set(one.cases) <= cases, one.name
        assert not one.findings
    assert {name.partition("@")[0] for name in HEALTHY} == set(UNUSUAL.values())


def test_there_are_faults_in_every_room_and_no_two_are_described_alike() -> None:
    families = Counter(one.family for one in FAULTS.values())
    assert len(families) >= len(ROOMS)
    assert min(families.values()) >= 6
    said = Counter((one.what, one.cases[0].rpartition("/")[0], INJECTED[one.name].into) for one in FAULTS.values())
    assert {words: count for words, count in said.items() if count > 1} == {}


def test_a_name_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(FAULTS)).partition("@")[2]
    with pytest.raises(ValueError, match=f"two faults are called faulty-torch@{name}"):
        fault("torch", name, "structure", "again", "relu/value/f32")(lambda program, _: program)
