"""The page of a check: one file, in which nothing that a model or a runtime says is markup, and every layer is there."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import made_check
import pytest

from actconform.report.check.page import write_page


def data_of(folder, result):
    text = write_page(result, folder).read_text(encoding="utf-8")
    return text, json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def test_foreign_texts_come_back_as_text_and_make_no_element(tmp_path):
    text, data = data_of(tmp_path, made_check.hostile())
    plain, _ = data_of(tmp_path, made_check.check())
    assert text.count("<script") == plain.count("<script") == 2
    assert text.count("<img") == 0
    shown = made_check.HOSTILE.replace("::error", r"\x3a:error").replace("\u202e", r"\u202e")
    shown = shown.replace("\u202c", r"\u202c").replace("\x1b", r"\x1b")
    assert data["model"] == shown
    assert shown in data["texts"]


def test_the_script_never_makes_markup_of_text():
    for asset in (files("actconform.report.check") / "assets").iterdir():
        text = asset.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
        assert text.count("\n") <= 350, asset.name


def test_the_same_result_gives_the_same_bytes(tmp_path):
    assert data_of(tmp_path, made_check.all_kinds()) == data_of(tmp_path, made_check.all_kinds())


def test_every_tensor_of_every_run_is_there_in_the_order_of_the_graph(tmp_path):
    result = made_check.all_kinds()
    _, data = data_of(tmp_path, result)
    tensors = [
        (tensor.tensor, pytest.approx(tensor.ratio, rel=1e-4))
        for runtime in result.runtimes
        for level in runtime.levels
        for tensor in level.tensors
    ]
    assert sorted((data["texts"][row[4]], row[6]) for row in data["layers"]) == sorted(
        tensors, key=lambda pair: (pair[0], pair[1].expected)
    )
    assert len(data["runs"]) == 5
    places = [row[1] for row in data["layers"]]
    assert places == sorted(places)
    wrong = [row for row in data["layers"] if row[6] == 412]
    assert [row[0] for row in wrong] == [0, 4]


def test_numbers_that_json_has_not_are_words(tmp_path):
    wrong = made_check.tensor(ratio=made_check.INF, bound=0.0, got=float("nan"), looseness=made_check.INF)
    _, data = data_of(tmp_path, made_check.check(made_check.runtime(levels=[made_check.level(tensors=[wrong])])))
    row = data["layers"][0]
    assert (row[6], row[9], row[13]) == ("inf", "inf", "nan")
    assert data["runtimes"][0]["powers"][0][1::3] == [0, 1]


def test_ten_thousand_layers_stay_a_page_that_loads(tmp_path):
    text, data = data_of(tmp_path, made_check.large(10_000))
    assert len(data["layers"]) == 18_335
    assert len(text) < 6e6


def test_the_page_has_the_command_that_made_the_check(tmp_path):
    command = "actconform check 'my model.onnx' --inputs 'val set.npz'"
    _, data = data_of(tmp_path, made_check.check(made_check.runtime(), command=command))
    assert data["command"] == command
