"""The reporters that come with actconform, as a plugin like anybody's."""

from __future__ import annotations

from actconform.hookspecs import hookimpl
from actconform.interfaces import Reporter  # noqa: TC001  pluggy shows the annotation
from actconform.report.accuracy import Accuracy
from actconform.report.html import Html
from actconform.report.junit import Junit
from actconform.report.summary import Summary


class Reporters:
    """Every file beside report.json that a run leaves."""

    @hookimpl
    def actconform_reporters(self) -> tuple[type[Reporter], ...]:
        return (Html, Junit, Summary, Accuracy)
