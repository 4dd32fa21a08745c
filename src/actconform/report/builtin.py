"""The reporters that come with actconform, as a plugin like anybody's."""

from __future__ import annotations

from actconform.plugin.hookspecs import hookimpl
from actconform.plugin.interfaces import Reporter  # noqa: TC001  pluggy shows the annotation
from actconform.report.files.accuracy import AccuracyReporter
from actconform.report.files.junit import Junit
from actconform.report.html import Html
from actconform.report.text.summary import Summary


class Reporters:
    """Every file beside report.json that a run leaves."""

    @hookimpl
    def actconform_reporters(self) -> tuple[type[Reporter], ...]:
        return (Html, Junit, Summary, AccuracyReporter)
