"""check.json: all of a check, for programs; written, and read back."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

import msgspec

from actconform.checking.result import CheckResult
from actconform.errors import UsageError
from actconform.files import read_bytes, write_bytes
from actconform.types.json import finite

if TYPE_CHECKING:
    from pathlib import Path

CHECK = "check.json"
CHECK_SCHEMA = 1


class _Version(msgspec.Struct):
    schema: int


def write_json(result: CheckResult, folder: Path) -> Path:
    """Write check.json into `folder` and return its path. Numbers that are not finite become "nan", "inf", "-inf". Raises OSError."""
    content = {"schema": CHECK_SCHEMA, "explained": result.explained, **finite(result)}
    path = folder / CHECK
    write_bytes(path, msgspec.json.encode(content) + b"\n")
    return path


def read_json(path: Path) -> CheckResult:
    """Return the check in the file `path`, or in the folder `path`; "nan", "inf" and "-inf" are numbers again.

    Raises UsageError, naming the file, what is wrong with it, and what to do, where it is missing, cut off, not JSON, no check,
    or one of another schema.
    """
    file = path / CHECK if path.is_dir() else path
    advice = f"wanted the {CHECK} that `actconform check MODEL --out DIR` writes"
    try:
        text = read_bytes(file).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}; {advice}") from error
    try:
        version = msgspec.json.decode(text, type=_Version).schema
        if version != CHECK_SCHEMA:
            raise UsageError(
                f"{file}: is of schema {version}, this actconform reads schema {CHECK_SCHEMA}: "
                "read it with the actconform that wrote it, or check the model again"
            )
        return msgspec.json.decode(
            text, type=CheckResult, strict=False
        )  # not strict: "inf" where a number stands is one
    except msgspec.ValidationError as error:
        raise UsageError(f"{file}: is JSON, but not a check ({error}); {advice}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        wrong = (
            "is empty" if not text.strip() else "is cut off" if "truncated" in str(error) else f"is not JSON ({error})"
        )
        raise UsageError(f"{file}: {wrong}; {advice}, whole") from error
