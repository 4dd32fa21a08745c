"""Which cases there are, and which a run selects: every word must match something, and all together too."""

from __future__ import annotations

import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.errors import UsageError
from actconform.plugin.interfaces import Backend, Exporter
from actconform.plugin.loader import Broken, Catalog
from actconform.run.select import Selection, all_cases, asked_for, routes, select
from actconform.types import ASPECTS, Case
from actconform.types.cause import Register
from actconform.types.dtypes import DTYPES
from actconform.types.model import Input

if TYPE_CHECKING:
    from actconform.types.model import Model

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MODELS = {model.name: model for model in networks()}


class Framework(Backend):
    name = "numpy"
    kind = "framework"

    def facts(self):
        return {}


class Runtime(Backend):
    name = "tiny-rt"
    kind = "runtime"

    def facts(self):
        return {}


class OtherRuntime(Runtime):
    name = "other-rt"


class Exported(Exporter):
    name = "numpy2onnx"
    source = "numpy"


class Traced(Exporter):
    name = "numpy-trace"
    source = "numpy"


def catalog(
    *backends: type[Backend],
    exporters: tuple[type[Exporter], ...] = (),
    broken: tuple[Broken, ...] = (),
    models: dict[str, Model] | None = None,
) -> Catalog:
    return Catalog(
        kernels=KERNELS,
        models=models or {},
        backends={backend.name: backend for backend in backends},
        exporters={exporter.name: exporter for exporter in exporters},
        register=Register(),
        faults=(),
        broken=broken,
        backend_plugin={},
        exporter_plugin={},
    )


BOTH = catalog(Framework, Runtime)
EVERYTHING = catalog(Framework, Runtime, exporters=(Exported, Traced), models=MODELS)
CASES = all_cases(BOTH)


def refused(**wanted) -> str:
    with pytest.raises(UsageError) as error:
        select(CASES, Selection(**wanted))
    return str(error.value)


def test_a_framework_has_its_own_route_and_a_runtime_one_with_authored_graphs():
    assert routes(BOTH) == ["numpy", "authored+tiny-rt"]


WITH_EXPORTERS = catalog(Framework, Runtime, OtherRuntime, exporters=(Exported, Traced))


def test_every_runtime_has_a_route_with_every_exporter() -> None:
    assert sorted(routes(WITH_EXPORTERS)) == sorted(
        ["numpy"]
        + [
            f"{exporter}+{rt}"
            for exporter in (
                "authored",
                "numpy2onnx",
                "numpy-trace",
                "numpy2onnx@const",
                "numpy-trace@const",
            )
            for rt in ("tiny-rt", "other-rt")
        ]
    )
    assert routes(catalog(Framework, exporters=(Exported,))) == ["numpy"]


def test_exported_graphs_are_of_f32_and_f16() -> None:
    cases = all_cases(WITH_EXPORTERS)
    for route in ("numpy2onnx+tiny-rt", "numpy-trace+tiny-rt", "numpy2onnx+other-rt", "numpy-trace+other-rt"):
        mine = [case for case in cases if case.route == route]
        assert {case.dtype for case in mine} == {"f32", "f16"}
        for aspect in ("value", "gradient"):
            wanted = {name for name, kernel in KERNELS.items() if aspect == "value" or kernel.differentiable}
            found = [case.subject for case in mine if case.aspect == aspect]
            assert set(found) == wanted
            assert len(found) == 2 * len(wanted)
    others = [case for case in cases if case.exporter in (None, "authored") and case.backend != "other-rt"]
    assert others == CASES


def test_an_exporters_route_is_chosen_by_name_pattern_and_backend() -> None:
    cases = all_cases(WITH_EXPORTERS)
    (one,) = select(cases, Selection(patterns=["relu/value/f32/numpy2onnx+tiny-rt"]))
    assert (one.exporter, one.backend) == ("numpy2onnx", "tiny-rt")
    assert {case.exporter for case in select(cases, Selection(backends=["tiny-rt"]))} == {
        "authored",
        "numpy2onnx",
        "numpy-trace",
    }
    with pytest.raises(UsageError, match="together select no case"):
        select(cases, Selection(routes=["numpy2onnx+tiny-rt"], dtypes=["bf16"]))


class Injected(Exporter):
    name = "injected"
    source = "numpy"
    variants = ("bad", "worse")


@pytest.mark.parametrize("route", ["injected@bad+tiny-rt", "injected@bad@const+tiny-rt"])
def test_a_variant_of_an_exporter_has_graphs_of_models_with_constants_too(route: str) -> None:
    offered = catalog(Framework, Runtime, exporters=(Exported, Injected), models=MODELS)
    asked = asked_for(offered, Selection(routes=[route]))
    assert asked == {"injected@bad"}
    of_it = [one for one in routes(offered, asked) if "injected" in one]
    assert of_it == ["injected@bad+tiny-rt", "injected@bad@const+tiny-rt"]
    assert not any("injected" in one for one in routes(offered))
    cases = [case for case in all_cases(offered, selected=asked) if case.route == of_it[1]]
    assert {case.subject for case in cases} == {name for name in MODELS if PUBLISHED not in name}
    assert {(case.aspect, case.exporter, case.constants) for case in cases} == {("value", "injected@bad", True)}
    assert offered.exporter(cases[0]) is Injected


def test_a_broken_plugin_keeps_a_route_of_its_name_so_that_it_is_missed():
    broken = Broken("lost", "lost 1.0", "no such module")
    found = catalog(Framework, broken=(broken,))
    assert routes(found) == ["numpy", "lost"]
    assert {case.backend for case in all_cases(found)} == {"numpy", "lost"}
    assert routes(catalog(Framework, broken=(Broken("numpy", "other 1.0", "wrong"),))) == ["numpy"]


def test_a_model_with_nothing_to_differentiate_has_values_alone():
    drawn = [
        Input(name="mask", shape=(4, 4, 2), draw="mask:0.5", role="noise"),
        Input(name="target", shape=(2, 2, 2), draw="normal", role="target"),
    ]
    layers = [
        layer("y", "max-pool", "mask", size=(2, 2), strides=(2, 2), padding="valid"),
        layer("loss", "mean-squared-error", "y", "target"),
    ]
    fixed = describe("fixed", "of noise alone", drawn, layers, output="y", batch=2)
    assert fixed.differentiable == ()
    cases = [case for case in all_cases(catalog(Framework, models={"fixed": fixed})) if case.subject == "fixed"]
    assert [case.id for case in cases] == [f"fixed/value/{dtype}/numpy" for dtype in ("f32", "f16", "bf16")]


def test_every_kernel_aspect_dtype_and_route_is_a_case_once():
    ids = [case.id for case in CASES]
    assert len(set(ids)) == len(ids)
    differentiable = sum(kernel.differentiable for kernel in KERNELS.values())
    assert len(ids) == (len(KERNELS) + differentiable) * len(DTYPES) * 2
    assert {case.subject for case in CASES} == KERNELS.keys()


def test_kernels_without_a_gradient_have_no_gradient_cases():
    aspects = {name: {case.aspect for case in CASES if case.subject == name} for name in KERNELS}
    assert aspects["argmax"] == aspects["hardmax"] == {"value"}
    assert aspects["softmax"] == set(ASPECTS)
    assert Counter(len(found) for found in aspects.values())[1] == 2


def test_ids_are_safe_in_a_shell_a_file_name_and_a_url():
    for case in (*CASES, *all_cases(EVERYTHING, full=True)):
        assert case.id == f"{case.subject}/{case.aspect}/{case.dtype}/{case.route}"
        assert re.fullmatch(r"[a-z0-9][A-Za-z0-9.@+_-]*(/[a-z0-9][A-Za-z0-9.@+_-]*){3}", case.id)
        assert quote(case.id, safe="/+@") == case.id


def test_without_words_everything_is_selected_in_order():
    assert select(CASES, Selection()) == CASES


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("relu/value/f32/numpy", 1),
        ("relu/value/f32/*", 2),
        ("gelu-*/gradient/bf16/numpy", 3),
        ("*/f16/*", None),
        ("re[l]u/*/f3?/numpy", 2),
        ("*+tiny-rt", None),
        ("*", None),
    ],
)
def test_a_pattern_is_a_glob_on_the_whole_id(pattern: str, count: int | None):
    chosen = select(CASES, Selection(patterns=[pattern]))
    assert chosen == [case for case in CASES if fnmatchcase(case.id, pattern)]
    assert count is None or len(chosen) == count


def test_patterns_add_up_and_filters_narrow_down():
    chosen = select(CASES, Selection(patterns=["relu/*", "elu/*"], dtypes=["f32"], aspects=["value"]))
    assert [case.id for case in chosen] == [
        f"{kernel}/value/f32/{route}" for kernel in ("elu", "relu") for route in ("numpy", "authored+tiny-rt")
    ]
    assert select(CASES, Selection(backends=["tiny-rt"])) == select(CASES, Selection(routes=["authored+tiny-rt"]))
    both = select(CASES, Selection(backends=["numpy", "tiny-rt"], dtypes=["f16", "bf16"]))
    assert both == [case for case in CASES if case.dtype != "f32"]


@pytest.mark.parametrize(
    ("option", "word", "expected"),
    [
        ("backends", "nunpy", "unknown backend 'nunpy'; did you mean numpy?"),
        ("backends", "authored+tiny-rt", "unknown backend 'authored+tiny-rt'; did you mean tiny-rt?"),
        ("routes", "tiny-rt", "unknown route 'tiny-rt'; did you mean authored+tiny-rt?"),
        ("aspects", "values", "unknown aspect 'values'; did you mean value?"),
        ("dtypes", "fp32", "unknown dtype 'fp32'; did you mean f32?"),
        ("dtypes", "double", "unknown dtype 'double'; known: bf16, f16, f32"),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_one(option: str, word: str, expected: str):
    assert refused(**{option: [word]}) == expected


def test_one_unknown_word_among_known_ones_is_refused():
    assert "'nunpy'" in refused(backends=["numpy", "nunpy"])
    assert "'no/such/*'" in refused(patterns=["relu/*", "no/such/*"])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("gelu-erv/value/f32/numpy", "nothing is called 'gelu-erv'; did you mean gelu-erf"),
        ("relu/val/f32/numpy", "'val'; did you mean value?"),
        ("gelu", "'gelu'; did you mean 'gelu*'?"),
        ("relu/value/fp32/numpy", "'fp32'; did you mean f32?"),
        ("relu/value/f32/nunpy", "'nunpy'; did you mean numpy?"),
        ("relu", "did you mean relu/*"),
        ("relu/value/", "did you mean relu/value/*"),
        ("reluu", "'reluu'; did you mean relu"),
        ("relu", "pattern 'relu' matches no case"),
        ("argmax/gradient/*", "pattern 'argmax/gradient/*' matches no case"),
        ("", "pattern '' matches no case"),
        ("relu/value/f32/numpy/more", "matches no case"),
    ],
)
def test_a_pattern_that_matches_nothing_says_what_is_near_and_how_patterns_are_written(pattern: str, expected: str):
    message = refused(patterns=[pattern])
    assert expected in message
    assert "SUBJECT/ASPECT/DTYPE/ROUTE" in message
    assert "actconform list cases" in message


def test_words_that_match_something_each_but_nothing_together_are_refused():
    assert "together select no case" in refused(patterns=["*/value/*"], aspects=["gradient"])
    assert "together select no case" in refused(backends=["numpy"], routes=["authored+tiny-rt"])


def test_with_no_backend_installed_the_message_says_what_to_install():
    with pytest.raises(UsageError, match=r"no backend is installed: pip install"):
        select(all_cases(catalog()), Selection())


def test_a_case_knows_its_backend_and_its_exporter():
    native, exported = Case("relu", "value", "f32", "numpy"), Case("relu", "value", "f32", "torch-dynamo+ort-cpu@1.30")
    assert (native.backend, native.exporter) == ("numpy", None)
    assert (exported.backend, exported.exporter) == ("ort-cpu@1.30", "torch-dynamo")
    assert not native.constants
    assert not exported.constants
    shipped = Case("mlp-relu", "value", "f32", "torch-dynamo@const+ort-cpu@1.30")
    assert (shipped.backend, shipped.exporter, shipped.constants) == ("ort-cpu@1.30", "torch-dynamo", True)


# Models


def cases_of(*, full: bool = False) -> list[Case]:
    return [case for case in all_cases(EVERYTHING, full=full) if case.subject in MODELS]


def test_models_come_after_kernels_in_their_order() -> None:
    cases = all_cases(EVERYTHING)
    subjects = list(dict.fromkeys(case.subject for case in cases))
    small = [name for name in MODELS if PUBLISHED not in name]
    assert subjects == [*KERNELS, *small]
    assert [case for case in cases if case.subject in KERNELS] == all_cases(
        catalog(Framework, Runtime, exporters=(Exported, Traced))
    )


def test_models_have_gradients_on_every_route_but_where_parameters_are_constants() -> None:
    by_route: dict[str, set[tuple[str, str]]] = {}
    for case in cases_of():
        by_route.setdefault(case.route, set()).add((case.aspect, case.dtype))
    both, value = {("value", "f32"), ("gradient", "f32")}, {("value", "f32")}
    in_all = {(aspect, dtype) for aspect, _ in both for dtype in ("f32", "f16", "bf16")}
    assert by_route == {
        "numpy": in_all,
        "authored+tiny-rt": in_all,
        "numpy2onnx+tiny-rt": both,
        "numpy-trace+tiny-rt": both,
        "numpy2onnx@const+tiny-rt": value,
        "numpy-trace@const+tiny-rt": value,
    }
    assert set(by_route) == set(routes(EVERYTHING))
    small = {name for name in MODELS if PUBLISHED not in name}
    for route in by_route:
        assert {case.subject for case in cases_of() if case.route == route} == small


def test_only_models_have_graphs_with_constants() -> None:
    assert {case.subject for case in all_cases(EVERYTHING, full=True) if case.constants} == MODELS.keys()
    assert not [case for case in all_cases(WITH_EXPORTERS) if case.constants]
    with pytest.raises(UsageError, match="matches no case"):
        select(all_cases(EVERYTHING), Selection(patterns=["relu/value/f32/numpy2onnx@const+tiny-rt"]))


def test_published_sizes_are_there_with_full_alone() -> None:
    small, whole = cases_of(), cases_of(full=True)
    assert not [case for case in small if PUBLISHED in case.subject]
    assert [case for case in whole if PUBLISHED not in case.subject] == small
    published = {case.subject for case in whole} - {case.subject for case in small}
    assert published == {name for name in MODELS if PUBLISHED in name}
    assert len(published) == 18
    assert len({case.id for case in whole}) == len(whole)


@pytest.mark.parametrize("pattern", ["mlp-relu@published/*", "*@published/value/*", "mlp-relu@published"])
def test_a_published_size_asked_for_without_full_is_told_of_it(pattern: str) -> None:
    with pytest.raises(UsageError) as error:
        select(all_cases(EVERYTHING), Selection(patterns=[pattern]))
    assert f"pattern {pattern!r} matches no case; @published is there with --full" in str(error.value)


def test_models_and_routes_with_constants_are_chosen_like_others() -> None:
    cases = all_cases(EVERYTHING, full=True)
    chosen = select(cases, Selection(patterns=["mlp-relu*/value/*"], routes=["numpy2onnx@const+tiny-rt"]))
    assert [case.subject for case in chosen] == ["mlp-relu", "mlp-relu@published"]
    assert {case.constants for case in select(cases, Selection(backends=["numpy"]))} == {False}
    with pytest.raises(UsageError, match=r"unknown route 'numpy2onnx@const'; did you mean numpy2onnx@const\+tiny-rt"):
        select(cases, Selection(routes=["numpy2onnx@const"]))
    with pytest.raises(UsageError, match="nothing is called 'mlp-rellu'; did you mean mlp-relu"):
        select(cases, Selection(patterns=["mlp-rellu/*/*/*"]))
    with pytest.raises(UsageError, match="together select no case"):
        select(cases, Selection(patterns=["mlp-relu@published/*"], dtypes=["f16"]))


class Slow(Runtime):
    name = "slow-rt"
    extra = True


class Other(Framework):
    name = "other"
    extra = True


class OfOther(Exporter):
    name = "other2onnx"
    source = "other"


EXTRA = catalog(Framework, Runtime, Slow, Other, exporters=(Exported, OfOther))
DEFAULT = {"numpy", "authored+tiny-rt", "numpy2onnx+tiny-rt", "numpy2onnx@const+tiny-rt"}


@pytest.mark.parametrize(
    ("wanted", "more"),
    [
        (Selection(), set()),
        (Selection(backends=("slow-rt",)), {"authored+slow-rt", "numpy2onnx+slow-rt", "numpy2onnx@const+slow-rt"}),
        (Selection(routes=("other2onnx+tiny-rt",)), {"other2onnx+tiny-rt", "other2onnx@const+tiny-rt"}),
        (Selection(patterns=("relu/value/f32/other",)), {"other"}),
    ],
)
def test_an_extra_backend_and_its_exporters_run_where_they_are_asked_for(wanted, more):
    assert set(routes(EXTRA, asked_for(EXTRA, wanted))) == DEFAULT | more


def test_all_backends_are_those_that_are_extra_too():
    wanted = Selection(backends=("all",))
    cases = all_cases(EXTRA, selected=asked_for(EXTRA, wanted))
    assert {case.backend for case in select(cases, wanted)} == {"numpy", "tiny-rt", "slow-rt", "other"}
    assert "other2onnx+slow-rt" in {case.route for case in cases}
