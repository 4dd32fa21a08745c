"""Progress of a check: a bar with nodes and time left on a terminal, the names of the stages elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from actconform.report.check.summary import name_shown, output_words
from actconform.report.terminal.live_bar import LiveBar
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType

    from actconform.checking.result import OutputCheck

OUTPUTS_SHOWN = 4
STAGE_LETTERS = 48


class CheckProgress(LiveBar):
    """Hears how far a check is, as `actconform.checking.model_check.Progress`; a context that ends its bar.

    On a terminal a bar tells the stage, steps done of all, and the time left; above it stand the outputs of the runtimes that
    have answered, until the check ends and its screen tells all. Elsewhere each stage is a line. `console` is one on standard
    error (`open_console(to_stderr=True)`).
    """

    def __init__(self, console: Console) -> None:
        self._stages = _Bar(console)
        super().__init__(self._stages, console)

    def stage(self, name: str, total: int = 0) -> None:
        shown = one_line(name, STAGE_LETTERS)
        if self._live:
            self._stages.begin(shown, total)
        else:
            self._line(shown, now=True)

    def step(self, count: int = 1) -> None:
        if self._live:
            self._stages.advance(self._stages.current, count)

    def outputs(self, runtime: str, outputs: Sequence[OutputCheck]) -> None:
        if self._live:
            self._stages.answered.append(_answer(runtime, outputs))
            self._stages.refresh()


def _answer(runtime: str, outputs: Sequence[OutputCheck]) -> Text:
    """Return a line with the outputs of a runtime, the worst first."""
    worst = sorted(outputs, key=lambda output: (output.explained, -output.spreads))[:OUTPUTS_SHOWN]
    words = "; ".join(f"{name_shown(output.name)} {output_words(output)}" for output in worst)
    style = "" if all(output.explained for output in outputs) else "red"
    return Text(f"{name_shown(runtime)}: {words}", style, no_wrap=True, overflow="ellipsis")


class _Bar(Progress):
    """One bar for the stage at hand, under the lines of what is known already."""

    def __init__(self, console: Console) -> None:
        self.answered: list[Text] = []
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.current = self.add_task("starting", total=None)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from self.answered
        yield from super().get_renderables()

    def begin(self, name: str, total: int) -> None:
        """Show a new stage of `total` steps; 0 where that is not known."""
        self.remove_task(self.current)
        self.current = self.add_task(name, total=total or None)
