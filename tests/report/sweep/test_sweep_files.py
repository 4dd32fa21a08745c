"""sweep.csv, sweep.tex and the page of sweeps, and CITATION.cff, which goes with the table."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import msgspec
import pytest
import yaml
from made_sweep import HOSTILE, compared, sweep

from actconform._version import __version__
from actconform.report.sweep.sweep_files import write_bits_csv, write_sweep_csv, write_sweep_table
from actconform.report.sweep.sweep_page import write_sweep_page
from actconform.sweep.summary import same_bits, sweep_rows


def test_a_line_of_the_csv_has_what_all_chunks_count(tmp_path):
    rows = sweep_rows([sweep("torch", facts={"torch": "2.13"}), sweep(HOSTILE, chunks=5), sweep("none", chunks=0)])
    lines = list(csv.DictReader(write_sweep_csv(rows, tmp_path).read_text("utf-8").splitlines()))
    assert [line["route"] for line in lines] == ["torch", "'=1+1 <script>window.harm=1</script>"]
    wanted = {
        "computed_by": "torch 2.13", "chunks": "256", "inputs": "2560", "max_ulp": "0.75", "max_ulp_input": "0x00000000",
        "correctly_rounded": "2048", "below_1_ulp": "2048", "nan_made": "3", "inf": "0", "flushed": "256", "decided_by_arb": "256",
    }  # fmt: skip
    assert {name: lines[0][name] for name in wanted} == wanted
    assert (len(lines[0]["sha256"]), lines[1]["sha256"]) == (64, "")
    assert [(line["findings"], line["unexplained"]) for line in lines] == [("1", "1"), ("1", "")]
    assert write_sweep_csv([], tmp_path).read_text() == "\n"


def test_the_table_has_a_column_a_route_and_marks_what_is_no_maximum(tmp_path):
    sweeps = [
        sweep("torch", facts={"torch": "2.13"}),
        sweep("ort-cpu", extent="quick", error=1.5e7),
        sweep("tf2onnx_a+ort-cpu", chunks=5, kernel="silu"),
    ]
    lines = write_sweep_table(sweep_rows(sweeps), tmp_path).read_text("utf-8").splitlines()
    assert r"\begin{tabular}{llrrr}" in lines
    assert r"kernel &  & torch (torch 2.13) & ort-cpu (plugin 1) & tf2onnx\_a+ort-cpu (plugin 1) \\" in lines
    assert r"tanh & value & $0.75$ & $1.5\cdot 10^{7}$\textsuperscript{*} & -- \\" in lines
    assert r"silu & value & -- & -- & $0.75$\textsuperscript{\dag} \\" in lines


def test_of_several_ranges_of_a_route_the_table_has_the_one_of_most_inputs(tmp_path):
    sweeps = [sweep("torch", error=7.5), sweep("torch", extent="sample", error=3.5, chunks=200)]
    assert r"tanh & value & $7.5$ \\" in write_sweep_table(sweep_rows(sweeps), tmp_path).read_text("utf-8").splitlines()


def test_routes_with_the_same_digests_are_bit_identical():
    pairs = same_bits([sweep("torch"), sweep("keras"), sweep("jax", sha256="b"), sweep("torch", kernel="silu")], {})
    assert list(map(str, pairs)) == [
        "tanh, value: jax and keras are bit-identical on 0 of 256 chunks; not counted: the inputs of 256 of 256 unequal chunks",
        "tanh, value: jax and torch are bit-identical on 0 of 256 chunks; not counted: the inputs of 256 of 256 unequal chunks",
        "tanh, value: keras and torch are bit-identical on all inputs of range all",
    ]
    assert str(same_bits([sweep("torch", chunks=5), sweep("keras")], {})[0]).endswith("bit-identical on 5 of 5 chunks")


def test_inputs_that_differ_stand_in_a_line_for_every_two_routes(tmp_path):
    sweeps = [sweep("torch"), sweep("jax", sha256="b")]
    (pair,) = same_bits(sweeps, compared(but_for=(9,)))
    counted = "differ on 510 of 2,550 inputs, from 0x00000001 to 0x80000002"
    assert str(pair).endswith(f"0 of 256 chunks, and {counted}; not counted: the inputs of 1 of 256 unequal chunks")
    (line,) = csv.DictReader(write_bits_csv([pair], tmp_path).read_text("utf-8").splitlines())
    assert line == {
        "kernel": "tanh", "aspect": "value", "range": "all", "first": "jax", "second": "torch", "chunks": "256", "bit_identical_chunks": "0",
        "uncounted_chunks": "1", "inputs": "2550", "differing": "510", "differing_first": "0x00000001", "differing_last": "0x80000002",
    }  # fmt: skip


def test_the_page_holds_the_map_of_each_sweep_and_no_foreign_markup(tmp_path):
    sweeps = [sweep("torch"), sweep(HOSTILE, chunks=5)]
    html = write_sweep_page(sweep_rows(sweeps), same_bits(sweeps, {}), tmp_path).read_text("utf-8")
    assert "<script>window" not in html
    data = msgspec.json.decode(re.search(r'type="application/json">(.*?)</script>', html)[1])
    torch = data["rows"][0]
    assert [len(column) for column in torch["map"]] == [510, 510]
    # the largest negative first: binade 510 is the lower one of chunk 255
    assert torch["map"][0][:3] == [0.75, None, 0.75]
    assert torch["findings"] == [["nan-made", 3, "0x1", "0x2", "", "new"]]
    assert torch["chunks"] == "256 of 256"
    assert data["rows"][1]["findings"] == [["nan-made", 3, "0x1", "0x2", "", "not looked for yet"]]


def page_data(sweeps, folder):
    html = write_sweep_page(sweep_rows(sweeps), [], folder).read_text("utf-8")
    return msgspec.json.decode(re.search(r'type="application/json">(.*?)</script>', html)[1])


def test_the_page_says_of_how_many_numbers_its_sweeps_are(tmp_path):
    whole, part = sweep("torch"), sweep("torch", extent="sample", kernel="silu")
    rows = sweep("torch", extent="sample", kernel="softmax", sample="32 rows of 2", place="chunk 0, call 1, y[5, 3]")
    assert page_data([whole], tmp_path)["title"] == "Kernels at all float32 numbers"
    assert page_data([whole, part], tmp_path)["title"] == "Kernels at some float32 numbers"
    data = page_data([part, rows], tmp_path)
    assert data["title"] == "Kernels at a sample of float32 numbers"
    assert data["samples"] == [
        "range sample: a sample of 32,768 numbers of each of the 512 binades; a largest error is a lower bound",
        "softmax, value: 32 rows of 2; a largest error is a lower bound",
    ]
    assert [row["shownInputs"] for row in data["rows"]] == ["2,560 of 4,294,967,296", "2,560 outputs of a sample"]
    assert data["rows"][1]["ulpAt"] == "chunk 0, call 1, y[5, 3]"
    (_, line) = csv.DictReader(write_sweep_csv(sweep_rows([part, rows]), tmp_path).read_text("utf-8").splitlines())
    assert (line["sample"], line["max_ulp_place"]) == ("32 rows of 2", "chunk 0, call 1, y[5, 3]")
    assert line["max_ulp_input"] == "0x00000000"


def test_a_phone_shows_the_page_and_no_foreign_word_is_markup(browse, too_small, tmp_path):
    sweeps = [sweep("torch"), sweep(HOSTILE, chunks=5)]
    page = browse(write_sweep_page(sweep_rows(sweeps), same_bits(sweeps, {}), tmp_path).as_uri(), width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert too_small(page) == []
    assert page.evaluate("window.harm") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_serious_fault_of_accessibility(browse, serious_faults, tmp_path, scheme):
    path = write_sweep_page(sweep_rows([sweep("torch")]), [], tmp_path)
    assert serious_faults(browse(path.as_uri(), scheme=scheme, bypass_csp=True)) == []


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((Path(__file__).parents[3] / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
