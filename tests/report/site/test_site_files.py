"""The tables of a site: the same numbers in CSV and LaTeX as in accuracy.json, and a citation that its readers can parse."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import msgspec
import pytest
from made import FACTS, finding, measurement, report, result
from ruamel.yaml import YAML

from actconform.report.across_runs.history_store import add_runs, past_run
from actconform.report.site.accuracy_tables import accuracy_csv, accuracy_latex
from actconform.report.site.citation import citation
from actconform.report.site.site_files import write_site
from actconform.run.recorder import write_report
from actconform.types import Verdict

TOP = Path(__file__).parents[3]
KNOWN = result(
    "elu/value/f32/ort_cpu", Verdict.XFAIL, findings=(finding("tail", deviation="=cause"),), measurements=(measurement(2.0, max_ulp=1.5e9),)
)  # fmt: skip
RUN = report(
    result("relu/value/f32/torch", measurements=(measurement(1.0),)),
    result("relu/value/f32/ort_cpu", Verdict.FAIL, findings=(finding("tail"),), measurements=(measurement(1.0),)),
    KNOWN,
    result("mlp-relu/value/f32/torch", measurements=(measurement(1.0, unit="bound"),)),
    problems=("1 FAIL",),
)


@pytest.fixture
def site(tmp_path):
    file = write_report(tmp_path, RUN)
    add_runs(tmp_path / "past", [past_run(RUN)])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "CNAME").write_text("mine")
    written = write_site(RUN, file, tmp_path / "past", tmp_path / "site", ())
    assert {path.name for path in written} == {path.name for path in (tmp_path / "site").iterdir()} - {"CNAME"}
    return tmp_path / "site"


def test_a_site_holds_the_history_and_the_report_and_leaves_what_is_not_its_own(site, tmp_path):
    assert (site / "CNAME").read_text() == "mine"
    assert (site / "history.jsonl").read_bytes() == (tmp_path / "past").read_bytes()
    assert (site / "report.json").read_bytes() == (tmp_path / "report.json").read_bytes()
    assert json.loads((site / "accuracy.json").read_text())["when"] == RUN.when


def test_csv_has_every_entry_of_accuracy_json_and_no_formula(site):
    entries = json.loads((site / "accuracy.json").read_text())["entries"]
    lines = list(csv.DictReader(io.StringIO((site / "accuracy.csv").read_text())))
    assert [(line["kernel"], line["route"], float(line["error"]), float(line["max_ulp"])) for line in lines] == [
        (entry["kernel"], entry["route"], entry["error"], entry["max_ulp"]) for entry in entries
    ]
    assert [line["causes"] for line in lines if line["verdict"] == "XFAIL"] == ["'=cause"]


def test_numbers_that_are_not_finite_are_words():
    entries = [
        {**dict.fromkeys(("kernel", "dtype", "aspect", "route", "verdict", "unit", "tensor", "regime"), "ulp"),
         "error": "inf", "limit": 0.0, "share": "inf", "max_ulp": "inf", "n": 1, "known": []}
    ]  # fmt: skip
    assert "inf" in accuracy_csv(entries).splitlines()[1].split(",")
    assert r"$\infty$" in accuracy_latex(entries, "")


def test_latex_has_a_row_a_kernel_and_marks_what_is_known_and_what_does_not_conform(site):
    text = (site / "accuracy.tex").read_text()
    rows = [re.split(r" & | \\\\$", line) for line in text.splitlines() if "&" in line]
    assert rows[0] == ["kernel", r"ort\_cpu", "torch", ""]
    assert rows[1] == ["elu", r"$1.5\cdot 10^{9}$\textsuperscript{\dag}", "--", ""]
    assert rows[2] == ["relu", r"$3$\textsuperscript{*}", "$3$", ""]
    assert len(rows) == 3  # models have no ULP
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_the_citation_names_the_run_and_the_authors_of_the_software(site):
    cited = YAML(typ="safe").load(site / "CITATION.cff")
    software = YAML(typ="safe").load(TOP / "CITATION.cff")
    assert RUN.when in cited["title"]
    assert str(cited["date-released"]) == RUN.when[:10]
    (reference,) = cited["references"]
    assert cited["authors"] == reference["authors"] == software["authors"]
    assert (reference["title"], reference["version"]) == (software["title"], FACTS.actconform)


def test_a_citation_of_a_report_without_a_time_and_with_a_foreign_version_is_still_one():
    facts = msgspec.structs.replace(FACTS, actconform='0.1"\n- x: [')
    cited = YAML(typ="safe").load(citation(report(when="", facts=facts)))
    assert "date-released" not in cited
    assert cited["references"][0]["version"] == '0.1" - x: ['
