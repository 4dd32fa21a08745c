"""The report that people look at: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from actconform.plugin.interfaces import Reporter

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.types.report import Report


class Html(Reporter):
    """Writes index.html: what is new, what is known by cause, the heat map, and every case behind it. The same report gives the same bytes.

    The page holds its data, style and script, and asks no network. DIR/selftest.json, the output of `actconform selftest
    --json`, is shown where it is there.
    """

    name: ClassVar[str] = "html"
    filename: ClassVar[str] = "index.html"

    def write(self, report: Report, folder: Path) -> None:
        from actconform.report.html.data import page_data  # workers load plugins too, and write no page
        from actconform.report.html.page import page
        from actconform.report.html.without_script import summary_without_script

        data = page_data(report, folder, trends=self.trends, register=self.causes)
        (folder / self.filename).write_text(page(data, summary_without_script(report)), encoding="utf-8", newline="\n")
