"""What is new in a job's results: against the last run of the base branch, and without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from made import finding, measurement, report, result

from actconform.checking.result import CheckResult, ModelFault, OutputCheck, RuntimeCheck
from actconform.errors import UsageError
from actconform.report.check.check_json import write_json
from actconform.report.check.exports import ExportCheck, ExportsResult, write_exports
from actconform.report.ci.outcome import ENDED_OTHERWISE, job_outcome
from actconform.run.recorder import write_report
from actconform.types import Verdict

if TYPE_CHECKING:
    from pathlib import Path

GOOD, BAD = result(), result(findings=(finding("inf", tensor="y", regime="edge"),))


@pytest.fixture
def run(tmp_path: Path):
    """Write the report of a run into a folder, and return the folder."""

    def written(name: str, *results, problems: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        write_report(folder, report(*results, problems=problems))
        return folder

    return written


def where(remarks) -> list[str]:
    return [remark.where for remark in remarks]


def test_a_run_that_conforms_is_green_with_and_without_a_baseline(run, tmp_path):
    for baseline in (None, tmp_path / "gone", run("old", GOOD)):
        outcome = job_outcome(run("new", GOOD), baseline, 0)
        assert (outcome.worse, outcome.earlier) == ((), ())
        assert outcome.compared is (baseline is not None and baseline.exists())


def test_a_new_finding_is_worse_and_one_of_before_is_not(run):
    bad = run("bad", BAD, problems=("1 FAIL",))
    outcome = job_outcome(bad, run("good", GOOD), 1)
    assert where(outcome.worse) == [BAD.case]
    assert "inf in y, edge: 7 elements; blame: runtime" in outcome.worse[0].words
    again = job_outcome(bad, bad, 1)
    assert (again.worse, where(again.earlier)) == ((), [BAD.case])
    assert again.headline == "nothing got worse; 1 of before"


def test_without_a_baseline_everything_that_does_not_conform_counts(run):
    outcome = job_outcome(run("bad", BAD, problems=("1 FAIL",)), None, 1)
    assert where(outcome.worse) == [BAD.case]
    assert "no baseline" in outcome.headline


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ([GOOD], [], "missing now"),
        ([GOOD], [result(verdict=Verdict.CRASH, reason="signal 11")], "PASS -> CRASH: signal 11"),
        ([GOOD], [result(verdict=Verdict.UNAVAILABLE, reason="no wheel")], "PASS -> UNAVAILABLE: no wheel"),
        ([], [result(verdict=Verdict.ERROR, reason="raised")], "ERROR: raised"),
        ([result(measurements=(measurement(1.0),))], [result(measurements=(measurement(7.0),))], "87.5 % now"),
    ],
    ids=["missing", "crash", "unavailable", "added", "error"],
)
def test_what_else_is_worse(run, old, new, words):
    outcome = job_outcome(run("new", *new, problems=("not so",)), run("old", *old), 1)
    assert words in outcome.worse[0].words
    assert outcome.worse[-1].words == "not so"


def test_a_command_that_failed_though_its_report_conforms_is_a_failure(run):
    outcome = job_outcome(run("new", GOOD), run("old", GOOD), 1)
    assert [remark.words for remark in outcome.worse] == [ENDED_OTHERWISE]


def test_a_run_that_lacks_what_it_must_have_as_before_says_so(run):
    lacking = run("lacking", GOOD, problems=("required route jax did not run",))
    outcome = job_outcome(lacking, lacking, 1)
    assert outcome.worse == ()
    assert [remark.words for remark in outcome.earlier] == ["required route jax did not run"]


def test_what_holds_no_results_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match=r"report\.json"):
        job_outcome(tmp_path / "gone", None, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"report\.json"):
        job_outcome(run("new", GOOD), tmp_path / "empty", 0)


def wrong(spreads: float = 100.0, node: str = "norm") -> RuntimeCheck:
    output = OutputCheck(name="y", sample=0, shape=(2,), spreads=spreads, explained=False)
    fault = ModelFault(blame="runtime", node=node, op_type="Softmax", sample=0, output=output)
    return RuntimeCheck(name="ort-cpu", status="not explained", outputs=[output], fault=fault)


RIGHT = RuntimeCheck(
    name="ort-cpu", status="explained", outputs=[OutputCheck(name="y", sample=0, shape=(2,), spreads=1.0)]
)


def checked(*runtimes: RuntimeCheck) -> CheckResult:
    return CheckResult(model="model.onnx", sha256="", opset=17, nodes=3, runtimes=list(runtimes))


@pytest.fixture
def check(tmp_path: Path):
    """Write the check of a model into a folder, and return the folder."""

    def written(name: str, *runtimes: RuntimeCheck) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        write_json(checked(*runtimes), folder)
        return folder

    return written


def test_a_check_is_compared_with_the_check_of_before(check):
    right, bad = check("right", RIGHT), check("bad", wrong())
    assert job_outcome(right, right, 0).worse == ()
    worse = job_outcome(bad, right, 1).worse
    assert where(worse) == ["ort-cpu", "ort-cpu"]
    assert worse[0].words.startswith("norm (Softmax): ")
    assert worse[1].words == "output y: 100 spreads (limit 16): NOT explained by rounding"
    again = job_outcome(bad, bad, 1)
    assert (again.worse, len(again.earlier)) == ((), 2)
    assert len(job_outcome(bad, None, 1).worse) == 2


def test_a_larger_error_another_place_and_a_silent_runtime_are_worse(check):
    bad = check("bad", wrong())
    assert job_outcome(check("more", wrong(199.0)), bad, 1).worse == ()
    assert len(job_outcome(check("larger", wrong(201.0)), bad, 1).worse) == 1
    assert len(job_outcome(check("elsewhere", wrong(node="head")), bad, 1).worse) == 1
    refused = RuntimeCheck(name="ort-cpu", status="failed", reason="no kernel")
    assert [remark.words for remark in job_outcome(check("refused", refused), bad, 1).worse] == ["failed: no kernel"]
    both = check("both", RIGHT, msgspec.structs.replace(RIGHT, name="openvino"))
    assert where(job_outcome(check("one", RIGHT), both, 0).worse) == ["openvino"]


def test_nothing_that_was_compared_is_no_success(check):
    assert [remark.words for remark in job_outcome(check("none"), None, 1).worse] == ["nothing was compared"]


def test_exports_are_compared_each_with_its_own(tmp_path):
    def exported(name: str, *exports: ExportCheck) -> Path:
        (tmp_path / name).mkdir()
        write_exports(ExportsResult(source="net:make", exports=list(exports)), tmp_path / name)
        return tmp_path / name

    dynamo = ExportCheck(exporter="torch-dynamo", folder="torch-dynamo", result=checked(RIGHT))
    refusal = ExportCheck(exporter="torch-dynamo", failure="no such operator")
    script = ExportCheck(exporter="torch-script", folder="torch-script", result=checked(RIGHT))
    old = exported("old", dynamo, script)
    assert job_outcome(exported("same", dynamo, script), old, 0).worse == ()
    outcome = job_outcome(exported("refused", refusal, script), old, 0)
    assert [(remark.where, remark.words) for remark in outcome.worse] == [
        ("torch-dynamo", "no graph: no such operator")
    ]
    assert job_outcome(exported("alone", refusal, script), None, 0).worse == ()  # an exporter may refuse a model


def test_a_broken_file_of_exports_is_refused(tmp_path):
    for text in ("", "{", '{"schema": 99}', '{"schema": 1, "source": 3}'):
        (tmp_path / "exports.json").write_text(text)
        with pytest.raises(UsageError, match=r"exports\.json"):
            job_outcome(tmp_path, None, 0)
