"""What docs/models.md shows works as it is written."""

from __future__ import annotations

import textwrap
from pathlib import Path

from actconform.oracle.layers.model import values
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import Model

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def test_a_model_of_your_own_is_described_as_shown():
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text[text.index("    from actconform import") : text.index("`actconform golden mint mine`")]
    names: dict[str, object] = {}
    exec(textwrap.dedent(shown), names)  # noqa: S102  the document is ours
    (model,) = names["plugin"].actconform_models()
    assert isinstance(model, Model)
    found = values(model, {**draw_inputs(model), **draw_parameters(model)})
    assert found["y"].shape == (4, 2)
    assert found["loss"].shape == ()
