"""The pages of a site in a real browser, as a person uses them: addresses that stay, search, trend, what foreign words become."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
import pytest
from made import FACTS, finding, measurement, report, result

from actconform.report.across_runs.history_store import add_runs, past_run
from actconform.report.site.site_files import write_site
from actconform.run.recorder import write_report
from actconform.types import Verdict

HOSTILE = "<script>window.harm=1</script><img src=x onerror=window.harm=1>"
RELU, ELU = "relu/value/f32/torch", "elu/value/f32/authored+ort-cpu"


def night(day: int, *results, torch: str = "2.12.0", problems: tuple[str, ...] = ()):
    facts = msgspec.structs.replace(FACTS, backends={"torch": {"torch": torch}, "ort-cpu": {"onnxruntime": HOSTILE}})
    return report(*results, when=f"2026-02-{day:02d}T00:00:00Z", facts=facts, problems=problems)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Three nights: a finding comes with a version of torch, a case goes. Returns the address of a page by its name."""
    folder = tmp_path_factory.mktemp("site")
    bad = result(RELU, findings=(finding("inf", tensor=HOSTILE),))
    gelu = result("gelu-erf/value/f32/torch", measurements=(measurement(tensor=HOSTILE),))
    nights = [
        night(1, result(RELU), result(ELU)),
        night(2, bad, result(ELU), torch="2.13.0", problems=(f"1 FAIL {HOSTILE}",)),
        night(3, bad, gelu, torch="2.13.0", problems=(f"1 FAIL {HOSTILE}",)),
    ]
    add_runs(folder / "history.jsonl", map(past_run, nights))
    file = write_report(folder, nights[-1])
    write_site(nights[-1], file, folder / "history.jsonl", folder / "out", ())
    return lambda page: f"{(folder / 'out').as_uri()}/{page}"


def rows(page, section: str) -> list[list[str]]:
    lines = page.locator(f"section#{section} tbody tr").all()
    return [line.locator("td").all_inner_texts() for line in lines]


def test_the_overview_has_cases_versions_and_runs_and_is_searched(browse, site):
    page = browse(site("index.html"))
    assert "Does not conform: 1 FAIL, 1 PASS" in page.inner_text("main")
    assert {line[0]: line[1] for line in rows(page, "cases")} == {
        RELU: "FAIL",
        ELU: "not in this run",
        "gelu-erf/value/f32/torch": "PASS",
    }
    assert [line[1] for line in rows(page, "runs")] == ["does not conform", "does not conform", "conforms"]
    torch = [line for line in rows(page, "versions") if line[0] == "torch"]
    assert [line[1:4] + line[5:] for line in torch] == [
        ["2026-02-02T00:00:00Z", "torch: torch 2.12.0 -> 2.13.0", "2", "1"],
        ["2026-02-01T00:00:00Z", "first run", "1", ""],
    ]
    page.fill("#by-text", "gelu torch")
    assert [line[0] for line in rows(page, "cases")] == ["gelu-erf/value/f32/torch"]


def test_a_case_has_an_address_with_its_trend_and_what_came_in_when_it_changed(browse, site):
    page = browse(site(f"index.html#case={quote(RELU, safe='')}"))
    assert page.inner_text("h2").startswith(RELU)
    assert page.locator("circle").count() == 3
    newest, first = rows(page, "events")
    assert newest[:2] == ["2026-02-02T00:00:00Z", "FAIL"]
    assert newest[4] == "torch: torch 2.12.0 -> 2.13.0"
    assert first[4] == "first run with it"
    page.click("text=This case in the latest report")
    page.wait_for_selector("main h2")
    assert page.url == site(f"report.html#case={quote(RELU, safe='')}")
    assert RELU in page.inner_text("h2")


def test_a_run_and_a_backend_have_addresses(browse, site):
    page = browse(site("index.html#run=2026-02-02T00:00:00Z"))
    ((case, before, then, _),) = rows(page, "changed")
    assert (case, before.split()[0], then.split()[0]) == (RELU, "PASS", "FAIL")
    assert "torch: torch 2.12.0 -> 2.13.0" in page.inner_text("section#facts")
    page.click(f"a:text('{RELU}')")
    assert page.inner_text("h2").startswith(RELU)
    page = browse(site("index.html#run=2026-02-03T00:00:00Z"))
    assert {line[0]: line[2].strip() for line in rows(page, "changed")}[ELU] == "not in this run"
    page = browse(site("index.html#backend=torch"))
    assert ["torch", "2.13.0"] in rows(page, "facts")


def test_pages_with_the_verdict_xfail_say_what_it_means_and_others_do_not(browse, site, tmp_path):
    known = result(RELU, Verdict.XFAIL, findings=(finding(deviation="tails"),), measurements=(measurement(),))
    nights = [night(1, known)]
    add_runs(tmp_path / "history.jsonl", map(past_run, nights))
    write_site(nights[0], write_report(tmp_path, nights[0]), tmp_path / "history.jsonl", tmp_path / "out", ())
    for page in ("index.html", "accuracy.html"):
        assert "XFAIL: a known deviation" in browse((tmp_path / "out" / page).as_uri()).inner_text("header")
        assert "XFAIL" not in browse(site(page)).inner_text("header")


@pytest.mark.parametrize("link", ["case=nosuch", "run=2020-01-01T00:00:00Z", "backend=%E0%A4%A", "case=constructor"])
def test_an_address_of_nothing_says_so(browse, site, link):
    assert "in this history" in browse(site(f"index.html#{link}")).inner_text("h2")


def test_the_table_of_accuracy_is_searched_and_leads_to_its_files(browse, site):
    page = browse(site("accuracy.html"))
    assert [line[0] for line in rows(page, "table")] == ["gelu-erf", "relu"]
    page.fill("#by-text", "relu f32")
    assert [line[0] for line in rows(page, "table")] == ["relu"]
    links = page.locator("section#files a").all_inner_texts()
    assert links == ["accuracy.csv", "accuracy.tex", "accuracy.json", "CITATION.cff"]


PAGES = [
    "index.html",
    f"index.html#case={quote(RELU, safe='')}",
    "index.html#run=2026-02-02T00:00:00Z",
    "accuracy.html",
]


@pytest.mark.parametrize("address", PAGES)
def test_foreign_words_stay_words_and_a_phone_shows_the_page_without_scrolling_sideways(browse, site, address):
    page = browse(site(address), width=390)
    assert HOSTILE in page.inner_text("body")
    assert page.evaluate("window.harm") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES)
def test_they_have_no_serious_fault_of_accessibility(browse, serious_faults, site, address, scheme):
    assert serious_faults(browse(site(address), scheme=scheme, bypass_csp=True)) == []
