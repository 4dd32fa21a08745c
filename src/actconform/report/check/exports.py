"""exports.json: what came of every export of a trained model, for programs; written, and read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.checking.result import CheckResult  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.checking.session import FailedExport
from actconform.errors import UsageError
from actconform.files import read_bytes, write_bytes
from actconform.types.json import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from actconform.checking.session import CheckedGraph

EXPORTS = "exports.json"
EXPORTS_SCHEMA = 1


class _Version(msgspec.Struct):
    schema: int


class ExportCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One graph of the trained model: made by an exporter just now, or a file of the user."""

    exporter: str = ""
    """"" for a file of the user."""
    folder: str = ""
    """Where its check.json lies, below that of exports.json; "" for a check of one file, whose files lie there."""
    failure: str = ""
    """Why there is no graph that could be checked, in the exporter's words."""
    result: CheckResult | None = None


class ExportsResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all exports of one trained model."""

    source: str
    kind: str = ""
    exports: list[ExportCheck] = []

    @property
    def explained(self) -> bool:
        """Whether some export was checked, and rounding explains every answer on each that was; an exporter that refuses the model is no difference."""
        checked = [export.result for export in self.exports if export.result is not None]
        return bool(checked) and all(result.explained for result in checked)


def collect_exports(
    source: str, graphs: Iterable[CheckedGraph | FailedExport], report: Callable[[CheckedGraph], None]
) -> ExportsResult:
    """Return what came of all graphs of a check; `report` hears of each while its runtimes are open, and what it held is freed then."""
    exports = []
    for graph in graphs:
        if isinstance(graph, FailedExport):
            exports.append(ExportCheck(exporter=graph.exporter, failure=graph.reason))
        else:
            report(graph)
            exports.append(ExportCheck(exporter=graph.exporter, folder=graph.folder, result=graph.result))
    return ExportsResult(source=source, exports=exports)


def write_exports(result: ExportsResult, folder: Path) -> Path:
    """Write exports.json into `folder` and return its path. Raises OSError."""
    content = {"schema": EXPORTS_SCHEMA, "explained": result.explained, **finite(result)}
    path = folder / EXPORTS
    write_bytes(path, msgspec.json.encode(content) + b"\n")
    return path


def read_exports(folder: Path) -> ExportsResult:
    """Return what exports.json in `folder` holds; "nan", "inf" and "-inf" are numbers again.

    Raises UsageError, naming the file and what is wrong with it, where it is missing, cut off, or not what `write_exports` wrote.
    """
    path = folder / EXPORTS
    advice = f"wanted the {EXPORTS} that `actconform check MODEL --out DIR` writes, whole"
    try:
        text = read_bytes(path)
        version = msgspec.json.decode(text, type=_Version).schema
        if version != EXPORTS_SCHEMA:
            raise UsageError(
                f"{path}: is of schema {version}, this actconform reads schema {EXPORTS_SCHEMA}: check the model again"
            )
        return msgspec.json.decode(
            text, type=ExportsResult, strict=False
        )  # not strict: "inf" where a number stands is one
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; {advice}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: is no such file ({error}); {advice}") from error
