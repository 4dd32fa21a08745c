"""What a study was asked for, as a command line."""

from __future__ import annotations

from pathlib import Path

from actconform.study.request import StudyRequest


def test_the_command_line_has_what_is_not_as_usual():
    assert StudyRequest().command_line == "actconform study"
    request = StudyRequest(
        ("noise-*",),
        ("relu",),
        ("hidden",),
        seeds=2,
        epochs=0,
        reach=0.25,
        backend="keras",
        out=Path("a b"),
        resume=True,
    )
    assert request.command_line == (
        "actconform study 'noise-*' --kernel relu --role hidden --seeds 2 --epochs 0 --reach 0.25 --backend keras --out 'a b'"
    )
