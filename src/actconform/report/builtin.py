"""The reporters that come with actconform, as a plugin like any other."""

from __future__ import annotations

from actconform.plugin.hookspecs import hookimpl
from actconform.plugin.interfaces import Reporter  # noqa: TC001  pluggy shows the annotation
from actconform.report.files.accuracy import AccuracyReporter
from actconform.report.files.junit import Junit
from actconform.report.html import Html
from actconform.report.text.summary import Summary


class Reporters:
    """The reporters of all files that a run writes beside report.json."""

    @hookimpl
    def actconform_reporters(self) -> tuple[type[Reporter], ...]:
        return (Html, Junit, Summary, AccuracyReporter)
