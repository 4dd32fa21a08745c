"""exports.json: what came of every export of a trained model, for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.checking.result import CheckResult  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.files import write_bytes
from actconform.types.json import finite

if TYPE_CHECKING:
    from pathlib import Path

EXPORTS = "exports.json"
EXPORTS_SCHEMA = 1


class ExportCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One graph of the trained model: made by an exporter just now, or a file of the user."""

    exporter: str = ""
    """"" for a file of the user."""
    folder: str = ""
    """Where its check.json lies, below that of exports.json."""
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


def write_exports(result: ExportsResult, folder: Path) -> Path:
    """Write exports.json into `folder` and return its path. Raises OSError."""
    content = {"schema": EXPORTS_SCHEMA, "explained": result.explained, **finite(result)}
    path = folder / EXPORTS
    write_bytes(path, msgspec.json.encode(content) + b"\n")
    return path
