"""Files of causes that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actconform.errors import UsageError
from actconform.types.cause import Register
from actconform.verdict.causes.register import with_files

if TYPE_CHECKING:
    from pathlib import Path

REGISTER = """
[[cause]]
id = "mine"
reason = "seen here"
link = "unreported"
since = "0.2"
routes = ["torch"]
covers = [{ class = "tail", kernels = ["elu"], bound = 3.0 }]
"""


def written(folder: Path, text: str | bytes, name: str) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_causes_come_from_every_file_that_is_named(tmp_path: Path):
    first = written(tmp_path, REGISTER, "a.toml")
    second = written(tmp_path, REGISTER.replace("mine", "yours"), "b.toml")
    register = with_files(Register(), (str(first), str(second)))
    assert [cause.id for cause in register.causes] == ["mine", "yours"]
    assert with_files(Register(), ()) == Register()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (REGISTER.replace("bound", "bund"), "bund"),
        (REGISTER.replace('link = "unreported"', ""), "link"),
        ("[[cause", "a.toml"),
        (b"# \xff", "a.toml"),
        (REGISTER + REGISTER, "two causes have the id 'mine'"),
    ],
)
def test_a_file_of_deviations_that_cannot_be_read_is_named(tmp_path: Path, text: str | bytes, expected: str):
    path = written(tmp_path, text, "a.toml")
    with pytest.raises(UsageError) as error:
        with_files(Register(), (str(path),))
    assert str(path) in str(error.value)
    assert expected in str(error.value)


def test_a_missing_file_of_deviations_is_named_with_the_setting(tmp_path: Path):
    with pytest.raises(UsageError, match=r"gone.toml: deviations file named in the settings cannot be read"):
        with_files(Register(), (str(tmp_path / "gone.toml"),))
