"""The files of drawn operators: drawn.json, and a folder for each finding with its model, data and program."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

import msgspec

from actconform.checking.model_file import ModelFile
from actconform.checking.reproduction import FINDING, PROOFS, Reproduction, second_opinions, worst_elements, write_model
from actconform.files import write_bytes
from actconform.report.issue.from_check import replaced, write_texts
from actconform.suite.drawn.judging import expected_outputs
from actconform.types.json import finite

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from actconform.checking.runs import RuntimeRuns
    from actconform.suite.drawn.drawn_report import DrawnFinding, DrawnReport
    from actconform.suite.drawn.search import Shrunk

DRAWN_JSON = "drawn.json"
UNSEEN = ("dtype", "missing", "unsteady", "mutated", "failed", "crash", "timeout")
"""Kinds of findings that no element shows: the program ends otherwise, or with 0."""


def write_drawn_json(report: DrawnReport, path: Path) -> None:
    """Write the report as JSON, infinite numbers as null. Raises OSError."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(finite(report)), indent=1) + b"\n")


def remove_earlier_findings(out: Path, operator: str, runtime: str) -> None:
    """Remove what an earlier run into the same folder found at an operator in a runtime. Raises OSError."""
    for path in (out / operator).glob(f"*-{runtime.replace('/', '-')}"):
        if (path / FINDING).is_file() and not path.is_symlink():
            shutil.rmtree(path)


def write_drawn_finding(
    out: Path, runs: RuntimeRuns, finding: DrawnFinding, shrunk: Shrunk, facts: Mapping[str, str], command: list[str]
) -> str:
    """Write the folder OPERATOR/DIGEST-RUNTIME of a finding under `out` and return its name; what was there is replaced.

    It has model.onnx, test_data_set_0 with what is right rounded to the outputs' types, repro.py and issue.md. Raises OSError.
    """
    part = shrunk.example.part
    with ModelFile(part.model) as file:
        got = dict(runs.outputs(file, part.inputs).outputs)
    accepted = {name: each.accepted for name, each in expected_outputs(part, got).items()}
    opinions, disagreeing = second_opinions(part.model, part.inputs, accepted)
    named = {title: opinions[proof.__name__] for proof, title in PROOFS.items() if proof.__name__ in opinions}
    shown = {name: right for name, right in accepted.items() if name in got}
    reproduction = Reproduction(
        title=f"{runs.name}: {finding.operator} ({finding.dtype}): {finding.words}",
        runtime=runs.name,
        source=runs.reproduction,
        packages=runs.packages,
        meaning=f"{finding.kind}: {finding.words}" if finding.kind in UNSEEN else "",
        facts=dict(facts),
        blame="runtime",
        subject=f"{finding.operator}, drawn and shrunk",
        node="node",
        commands=(shlex.join(["actconform", *command]),),
        worst=tuple(worst_elements(got, shown, named)),
        shapes=tuple(
            f"{name} has the shape {list(got[name].shape)}, and should have {list(right.truth.shape)}"
            for name, right in shown.items()
            if got[name].shape != right.truth.shape
        ),
        proofs=tuple(opinions),
        disagreeing=tuple(disagreeing.values()),
    )
    name = f"{finding.operator}/{finding.digest}-{runs.name.replace('/', '-')}"
    with replaced(out / name) as fresh:
        write_model(fresh, part.model, part.inputs, accepted)
        write_texts(fresh, reproduction)
    return name
