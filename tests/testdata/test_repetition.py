"""Which calls are made again: the first always, all where there is room, small ones until the count is full, always the same."""

from __future__ import annotations

from collections import Counter

from actconform.plugin.loader import load_plugins
from actconform.testdata.repetition import BUDGET, FEWEST, KERNEL_CALLS, SMALL, calls_of, repeated_calls


def test_all_calls_come_again_in_another_order_and_then_in_turn():
    again = repeated_calls([5] * 40, 160)
    assert len(again) == 120
    assert sorted(again[:40]) == list(range(40))
    assert again[:40] != tuple(range(40))
    assert set(Counter(again).values()) == {3}
    assert again == repeated_calls([5] * 40, 160)


def test_the_first_call_is_always_made_again():
    assert repeated_calls([1 << 20], 1) == (0,)
    assert 0 in repeated_calls([5] * 200, 160)
    assert repeated_calls([], 160) == ()


def test_where_there_are_many_calls_no_more_are_made_than_were_asked_for():
    again = repeated_calls([5] * 100, 160)
    assert len(again) == len(set(again)) == 60


def test_large_calls_are_made_twice_and_small_ones_more_often():
    sizes = [SMALL + 1, 3, 4, SMALL + 1]
    counts = Counter(repeated_calls(sizes, 50))
    assert (counts[0], counts[3]) == (1, 1)
    assert counts[1] + counts[2] == 44


def test_the_smallest_is_repeated_where_none_is_small_until_the_budget_is_spent():
    sizes = [2 * SMALL, SMALL + 1]
    counts = Counter(repeated_calls(sizes, 1000))
    assert counts[0] == 1
    assert counts[1] == 1 + BUDGET // (SMALL + 1)


def test_a_model_of_many_layers_is_called_less_often_than_one_of_few_and_a_kernel_most_often():
    catalog = load_plugins()
    few, many = (calls_of(catalog.subject(name), thorough=True) for name in ("linear-stack", "dnc-memory"))
    assert many < FEWEST < few < calls_of(catalog.subject("relu"), thorough=True) == KERNEL_CALLS
    assert calls_of(catalog.subject("linear-stack"), thorough=False) < FEWEST
    assert calls_of(catalog.subject("relu"), thorough=False) == KERNEL_CALLS
    assert len(repeated_calls([5] * 11, many)) == FEWEST
