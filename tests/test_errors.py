"""The words that go with a wrong name."""

from __future__ import annotations

from actconform.errors import near


def test_near_gives_the_nearest_names_or_a_short_list_or_nothing():
    assert near("torhc", ["torch", "keras"]) == "; did you mean torch?"
    assert near("zzz", ["torch", "keras"]) == "; known: torch, keras"
    assert near("zzz", [f"kernel-{n}" for n in range(13)]) == ""
