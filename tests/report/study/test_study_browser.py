"""The page of a study in a real browser, as a person uses it."""

from __future__ import annotations

import math

import msgspec
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import KERNELS
from actconform.report.study.study_page import write_study_page
from actconform.study.journal import StudyIdentity
from actconform.study.plan import Excluded, StudyPlan
from actconform.study.summary import study_rows
from actconform.study.trial import Trial

HOSTILE = "<script>window.harm=1</script><img src=x onerror=window.harm=1>"
NOISE, SIGNALS = (next(each for each in experiments() if each.name == name) for name in ("noise-relu", "signals-relu"))
PLAN = StudyPlan(
    experiments=(NOISE, SIGNALS),
    roles=("hidden", "output"),
    kernels=tuple(KERNELS.values()),
    seeds=2,
    epochs=3,
    reach=0.5,
)
IDENTITY = StudyIdentity(actconform="0.1", backend="torch", provider=HOSTILE, epochs=3, reach=0.5)


def trained(experiment, role, kernel, seed, losses):
    norms = {"dense1.kernel": 0.01 * (seed + 1), "head.kernel": 0.5}
    return Trial(
        experiment=experiment,
        variant="",
        role=role,
        kernel=kernel,
        seed=seed,
        losses=losses,
        validation=losses,
        constant=1.0,
        metric_name="mean absolute error",
        metric=0.7,
        reached=9 if losses[-1] < 0.5 else 0,
        diverged=0 if math.isfinite(losses[-1]) else 2,
        gradients_before=norms,
        gradients_after=norms,
        dead=0.25,
        saturated=0.5,
        rank=7.0,
        width=8,
        dimension=1.5,
        parameters=1065,
        steps=12,
        seconds=0.012,
    )


def trials():
    for seed in range(2):
        for role in ("hidden", "output"):
            yield trained("noise-relu", role, "relu", seed, (1.0, 0.6, 0.4 - 0.1 * seed))
            yield trained("noise-relu", role, "softmax", seed, (1.0, 1.0, 0.99))
            yield trained("noise-relu", role, "exponential", seed, (3.0, math.nan, math.nan))
        yield trained("signals-relu", "output", "sigmoid", seed, (1.0, 0.99, 0.98))
    failed = msgspec.structs.replace(
        trained("signals-relu", "output", "tanh", 0, (1.0,)), failure=f"refused: {HOSTILE}"
    )
    yield failed


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    excluded = [Excluded("noise-relu", "hidden", "max", "makes one number of a row")]
    rows = study_rows(PLAN, trials(), excluded)
    write_study_page(PLAN, IDENTITY, rows, {"noise-relu": 1.0, "signals-relu": 1.0}, "actconform study", folder)
    return (folder / "index.html").as_uri()


def kernels(page):
    return page.locator("table.study tbody td.kernel").all_inner_texts()


def test_the_table_has_a_row_for_each_kernel_in_each_role(browse, address):
    page = browse(address)
    assert kernels(page) == [
        *["relu", "softmax", "exponential"],
        "max",
        "relu",
        "softmax",
        "exponential",
        "sigmoid",
        "tanh",
    ]
    relu = page.locator("table.study tbody tr").nth(0).inner_text()
    for words in ("noise-relu", "hidden", "learns", "0.35", "0.3 – 0.4", "25 %", "50 %", "7 of 8", "1.5", "1,065", "9"):
        assert words in relu
    assert "diverged at step 2" in page.locator("table.study tbody tr").nth(2).inner_text()
    assert "not applicable: makes one number of a row" in page.locator("table.study tbody tr").nth(3).inner_text()
    assert page.get_attribute("table.study tbody tr >> nth=0", "class") == "present"


def test_foreign_words_stay_words(browse, address):
    page = browse(address)
    assert HOSTILE in page.inner_text("table.study")
    assert HOSTILE in page.inner_text("header")
    assert page.evaluate("window.harm") is None


def test_controls_narrow_table_and_curves(browse, address):
    page = browse(address)
    assert page.locator(".small-panel").count() == 7
    page.select_option("#by-role", "hidden")
    assert kernels(page) == ["relu", "softmax", "exponential", "max"]
    assert page.locator(".small-panel h4").all_text_contents() == ["relu0.35", "softmax0.99", "exponentialdiverged"]
    page.select_option("#by-role", "")
    page.select_option("#by-experiment", "signals-relu")
    assert kernels(page) == ["sigmoid", "tanh"]
    page.fill("#by-text", "sig")
    assert kernels(page) == ["sigmoid"]
    page.fill("#by-text", "no such kernel")
    assert page.locator(".small-panel").count() == 0


def test_columns_sort_and_what_has_no_number_stands_last(browse, address):
    page = browse(address)
    page.select_option("#by-role", "hidden")
    button = page.locator("table.study thead button", has_text="loss").first
    button.click()
    assert kernels(page) == ["relu", "softmax", "exponential", "max"]
    button = page.locator("table.study thead button", has_text="loss").first
    button.click()
    assert kernels(page) == ["softmax", "relu", "exponential", "max"]
    assert page.locator("table.study thead th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_each_panel_has_a_curve_or_the_place_where_it_is_lost(browse, address):
    page = browse(address)
    page.select_option("#by-role", "hidden")
    assert page.locator(".small-panel path.median").count() == 3
    assert page.locator(".small-panel .lost").count() == 1
    assert page.locator(".small-panel.bad-end h4").all_text_contents() == ["exponentialdiverged"]
    assert page.locator(".small-panel.present h4").all_text_contents() == ["relu0.35"]


def test_a_phone_shows_it(browse, address, too_small):
    page = browse(address, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert too_small(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_no_serious_fault_of_accessibility(browse, address, serious_faults, scheme):
    page = browse(address, scheme=scheme, bypass_csp=True)
    page.click("summary")
    assert serious_faults(page) == []
