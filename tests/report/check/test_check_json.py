"""check.json comes back as it was, and a file that is none is refused in words."""

from __future__ import annotations

import json
import math

import made_check
import msgspec
import pytest

from actconform.errors import UsageError
from actconform.report.check.check_json import read_json, write_json

RESULTS = [made_check.check, made_check.all_kinds, made_check.ill_conditioned]


@pytest.mark.parametrize("result", RESULTS)
def test_it_comes_back_as_it_was(tmp_path, result):
    path = write_json(result(), tmp_path)
    assert path == tmp_path / "check.json"
    assert read_json(path) == read_json(tmp_path) == result()


def test_numbers_that_json_has_not_come_back(tmp_path):
    wrong = made_check.tensor(ratio=made_check.INF, bound=0.0, lowest=-made_check.INF, got=float("nan"))
    write_json(made_check.check(made_check.with_fault(wrong)), tmp_path)
    assert json.loads((tmp_path / "check.json").read_text())["runtimes"][0]["fault"]["tensor"]["got"] == "nan"
    tensor = read_json(tmp_path).runtimes[0].fault.tensor
    assert (tensor.ratio, tensor.lowest, math.isnan(tensor.got)) == (math.inf, -math.inf, True)


def test_names_that_look_like_numbers_stay_names(tmp_path):
    wrong = made_check.tensor("inf", tensor="nan", op_type="null")
    write_json(made_check.check(made_check.with_fault(wrong), model="true"), tmp_path)
    result = read_json(tmp_path)
    fault = result.runtimes[0].fault
    assert (result.model, fault.node, fault.op_type, fault.tensor.tensor) == ("true", "inf", "null", "nan")


@pytest.mark.parametrize("explained", [True, False])
def test_schema_and_verdict_stand_at_the_top(tmp_path, explained):
    write_json(made_check.check() if explained else made_check.all_kinds(), tmp_path)
    content = json.loads((tmp_path / "check.json").read_text())
    assert list(content)[:3] == ["schema", "explained", "model"]
    assert (content["schema"], content["explained"]) == (1, explained)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        ("", "is empty"),
        ('{"schema": 1, "model', "is cut off"),
        ("no JSON", "is not JSON"),
        ("[]", "not a check"),
        ('{"schema": 1}', "not a check .*model"),
        ('{"schema": 9}', "is of schema 9, this actconform reads schema 1"),
    ],
)
def test_a_file_that_is_no_check_is_refused_with_what_to_do(tmp_path, content, words):
    if content is not None:
        (tmp_path / "check.json").write_text(content)
    with pytest.raises(UsageError, match=words) as error:
        read_json(tmp_path)
    assert "check.json" in str(error.value)


def test_fields_of_a_later_version_are_passed_over(tmp_path):
    path = write_json(made_check.check(), tmp_path)
    path.write_bytes(msgspec.json.encode({**json.loads(path.read_text()), "later": 1}))
    assert read_json(path) == made_check.check()
