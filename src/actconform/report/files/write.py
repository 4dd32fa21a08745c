"""Runs all reporters on a report: an error of one costs its own file alone, and is reported."""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from actconform.plugin.loader import Catalog
    from actconform.types.report import Report, Trend


class Written(NamedTuple):
    """The files that were written, and a message for each reporter that failed."""

    files: list[Path]
    faults: list[str]


def clear(folder: Path, catalog: Catalog) -> None:
    """Remove the reporters' files of an earlier report, so that all files in a folder are of one run."""
    for reporter in catalog.reporters.values():
        with contextlib.suppress(OSError):  # an obstacle is reported when the file is written
            (folder / reporter.filename).unlink(missing_ok=True)


def write_all(report: Report, folder: Path, catalog: Catalog, trends: Mapping[str, Trend] | None = None) -> Written:
    """Have each reporter of the catalog write its file into `folder`."""
    files, faults = [], []
    for kind in catalog.reporters.values():
        path = folder / kind.filename
        try:
            path.unlink(missing_ok=True)
            reporter = kind()
            reporter.trends = trends or {}
            reporter.causes = catalog.register.causes
            reporter.write(report, folder)
            if not path.exists():
                raise FileNotFoundError("it returned without writing it")
            files.append(path)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  whatever a plugin raises must not cost the others' files; a panic in Rust is no Exception
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            place = traceback.extract_tb(error.__traceback__)[-1]
            message = "".join(traceback.format_exception_only(error)).strip()
            faults.append(
                f"reporter {kind.name}: {path} is not written: {message} (at {place.filename}:{place.lineno})"
            )
    return Written(files, faults)
