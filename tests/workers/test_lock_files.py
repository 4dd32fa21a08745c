"""What lock files of pip, uv and Poetry pin, and how others are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actconform.errors import UsageError
from actconform.workers.lock_files import read_lock_file

if TYPE_CHECKING:
    from pathlib import Path

REQUIREMENTS = """\
\ufeff# compiled by pip-compile
--index-url https://example.org/simple
Onnx_Runtime[cpu] == 1.26.0 \\
    --hash=sha256:aaaa \\
    --hash=sha256:bbbb
    # via -r requirements.in
numpy==2.1.0 ; python_version >= "3.8"  # ours
numpy==1.0.0 ; python_version < "3.8"
torch==2.13.0+cpu
local @ file:///somewhere/local.whl
-e git+https://example.org/editable.git#egg=editable
ranged>=1.0
starred==1.*
-r more.txt
"""
UV = """\
version = 1
[[package]]
name = "onnxruntime"
version = "1.26.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "numpy"
version = "1.0.0"
resolution-markers = ["python_full_version < '3.8'", "python_full_version < '3.7'"]
[[package]]
name = "numpy"
version = "2.1.0"
resolution-markers = ["python_full_version < '3.7'", "python_full_version >= '3.8'"]
[[package]]
name = "two-extras"
version = "1.0"
[[package]]
name = "two-extras"
version = "2.0"
[[package]]
name = "the-project"
source = { virtual = "." }
"""
POETRY = """\
[[package]]
name = "onnxruntime"
version = "1.26.0"
groups = ["main"]
markers = {main = "python_version >= '3.8'"}
[[package]]
name = "numpy"
version = "2.1.0"
[[package]]
name = "winonly"
version = "1.0"
markers = "sys_platform == 'nosuch'"
"""
PYLOCK = """\
lock-version = "1.0"
[[packages]]
name = "onnxruntime"
version = "1.26.0"
[[packages]]
name = "numpy"
version = "2.1.0"
marker = "python_version >= '3.8'"
[[packages]]
name = "winonly"
version = "1.0"
marker = "sys_platform == 'nosuch'"
"""


def test_lines_of_pip_are_read_with_what_they_include(tmp_path: Path):
    path = tmp_path / "requirements.txt"
    path.write_text(REQUIREMENTS, encoding="utf-8")
    (tmp_path / "more.txt").write_text("flatbuffers===25.9.23")
    assert read_lock_file(path) == {
        "onnx-runtime": "1.26.0",
        "numpy": "2.1.0",
        "torch": "2.13.0+cpu",
        "flatbuffers": "25.9.23",
    }


@pytest.mark.parametrize(
    ("name", "text"), [("uv.lock", UV), ("poetry.lock", POETRY), ("pylock.toml", PYLOCK), ("pylock.gpu.toml", PYLOCK)]
)
def test_tables_of_uv_poetry_and_pylock_are_read(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    assert read_lock_file(tmp_path / name) == {"onnxruntime": "1.26.0", "numpy": "2.1.0"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("requirements.txt", b"", "names no package with its version; expected requirements.txt"),
        ("requirements.txt", b"numpy>=2\n", "names no package with its version"),
        ("requirements.txt", b"a==1\n\n{'b': 2}\n", r"requirements\.txt:3: \"\{'b': 2\}\" is no requirement"),
        (
            "requirements.txt",
            b"a==1 \\\n  --hash=x\nnumpy==new\n",
            r"requirements\.txt:3: 'numpy==new' is no requirement",
        ),
        ("requirements.txt", b"a===new\n", r"requirements\.txt:1: a: 'new' is no version"),
        ("requirements.txt", b"a==1\n-r more.txt\n", r"more\.txt: cannot be read: No such file"),
        ("requirements.txt", b"-r requirements.txt\n", "files include each other more than 16 deep"),
        ("report.json", b"\xff\xfe\x00", "is no text in UTF-8"),
        ("uv.lock", b"{}", "is no TOML"),
        ("pyproject.toml", b'[project]\nname = "x"\n', "names no package with its version"),
        ("uv.lock", b'[[package]]\nversion = "1"\n', "has a package without a name"),
        ("uv.lock", b'[[package]]\nname = "a"\nversion = "new"\n', r"uv\.lock: a: 'new' is no version"),
        ("uv.lock", b'[[package]]\nname = "a"\nversion = 1.5e300\n', "is no version"),
        ("poetry.lock", b'[[package]]\nname = "a"\nversion = "1"\nmarkers = "so"\n', "a: has a marker that is none"),
        ("poetry.lock", b'[[package]]\nname = "a"\nversion = "1"\nmarkers = 3\n', "a: has a marker that is none"),
        ("uv.lock", b"package = [3]\n", "has a package without a name"),
    ],
)
def test_what_is_no_lock_file_is_refused_in_words(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_lock_file(tmp_path / name)


def test_a_folder_is_no_lock_file(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_lock_file(tmp_path)
