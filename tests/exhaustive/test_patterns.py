"""Every pattern is in one binade of one chunk; a sample holds the ends of each binade."""

from __future__ import annotations

import numpy as np

from actconform.exhaustive.patterns import BINADES, CHUNKS, MANTISSAS, binades_of, chunk_order, patterns, swept_inputs


def test_all_chunks_hold_all_patterns():
    assert sorted(binade for chunk in range(CHUNKS) for binade in binades_of(chunk)) == list(range(BINADES))
    assert sum(swept_inputs(chunk, "all") for chunk in range(CHUNKS)) == 1 << 32
    whole = patterns(127, "all")
    assert whole.view(np.float32)[[0, -1]].tolist() == [1.0, np.nextafter(np.float32(2), np.float32(0))]
    assert (np.diff(whole.astype(np.int64)) == 1).all()
    assert whole.size == MANTISSAS


def test_the_quick_extent_has_ordinary_numbers_whole_and_of_others_a_sample_of_one_size():
    sizes = {binade: patterns(binade, "quick").size for binade in (111, 112, 133, 134, 256 + 127)}
    assert sizes == {111: 1 << 15, 112: MANTISSAS, 133: MANTISSAS, 134: 1 << 15, 256 + 127: MANTISSAS}
    assert patterns(112, "quick").view(np.float32)[0] == 2.0**-15
    assert patterns(133, "quick").view(np.float32)[-1] < 128.0


def test_a_sample_ascends_and_has_both_ends_and_every_low_bit():
    for binade in (0, 254, 255, 511):
        sample = patterns(binade, "sample").astype(np.int64)
        assert (np.diff(sample) > 0).all()
        assert sample[0] == binade << 23
        assert sample[-1] == (binade + 1 << 23) - 1
        assert np.diff(sample).max() <= 258
        ones = [int(((sample >> bit) & 1).sum()) for bit in range(23)]
        assert min(ones) > 16_000
        assert max(ones) < 17_000
    special = patterns(255, "sample").view(np.float32)
    assert np.isinf(special[0])
    assert np.isnan(special[1:]).all()


def test_chunks_come_by_their_distance_from_1():
    order = chunk_order()
    assert sorted(order) == list(range(CHUNKS))
    assert order[:2] == [63, 191]
