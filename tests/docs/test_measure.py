"""What docs/measure.md shows is what its Python prints."""

from __future__ import annotations

import contextlib
import io

import pytest
from documents import TOP, assert_shown, blocks


def test_the_examples_print_what_is_shown():
    pytest.importorskip("flint")
    names: dict[str, object] = {}
    printed, shown = "", 0
    for language, text in blocks(TOP / "docs" / "measure.md"):
        if language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(text, names)  # noqa: S102  the document is ours
            printed = output.getvalue()
        else:
            assert_shown(text, printed)
            assert len(text.splitlines()) == len(printed.splitlines())
            shown += 1
    assert shown == 3
    assert not names["measured"].conforms  # type: ignore[attr-defined]
