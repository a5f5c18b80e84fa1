"""Tests of tiles: what they cover, and that the result is that of the whole image."""

import numpy as np
import pytest

import network
from inference import tiling

SMALLEST = (2 * tiling.MARGIN + 32) ** 2


def test_receptive_field(net):
    """With positive weights, zero biases and one pixel that is not zero, the outputs that see it are not zero."""
    net.set_values({k: np.full_like(v, "weight" in k) * 0.1 for k, v in net.get_values().items()}, "ones")
    seen = []
    for phase in range(32):
        x = np.zeros([1, 3, 32, 640], np.float32)
        x[..., 288 + phase] = 1
        (touched,) = np.nonzero(net.run(x)[0, 0, 0])
        seen += [288 + phase - touched[0], touched[-1] - 288 - phase]
    assert max(seen) == network.receptive_field() <= tiling.MARGIN


# Several tiles along both sides, one side, none; sides that are and that are not multiples of 32.
@pytest.mark.parametrize(
    "size,max_pixels,tiles",
    [
        ((401, 390), SMALLEST, (3, 3)),
        ((640, 101), 480 * 128, (2, 1)),
        ((352, 397), 352 * 384, (1, 2)),
        ((31, 7), 0, (1, 1)),
    ],
)
def test_tiled_equals_whole(net, size, max_pixels, tiles):
    values = net.get_values()
    rng = np.random.default_rng(1)
    net.set_values({k: v if "weight" in k else rng.normal(0, 0.1, v.shape) for k, v in values.items()}, "random biases")
    x = rng.uniform(-0.5, 0.5, [3, *size]).astype(np.float32)
    shape = tiling.tile_shape(size, max_pixels)
    assert tuple(len(tiling._spans(n, length)) for n, length in zip(size, shape)) == tiles
    whole = net.run(x[None])[0]
    tiled = tiling.denoise(net, x, max_pixels)
    assert np.abs(whole).max() > 0.5
    np.testing.assert_allclose(tiled, whole, atol=2e-6 * np.abs(whole).max())
    assert whole.std() > 1000 * np.abs(tiled - whole).max()


@pytest.mark.parametrize("size", [(1, 1), (32, 5000), (353, 352), (1000, 999), (8336, 12000), (100000, 700)])
@pytest.mark.parametrize("max_pixels", [0, SMALLEST, 10**6, 2 * 10**6, 2**24])
def test_tiles_cover_once(size, max_pixels):
    shape = tiling.tile_shape(size, max_pixels)
    assert shape[0] * shape[1] <= max(max_pixels, SMALLEST)
    for n, length in zip(size, shape):
        spans = tiling._spans(n, length)
        covered = [i for _, kept in spans for i in (kept.start, kept.stop)]
        assert covered[0] == 0 and covered[-1] == n and covered[1:-1:2] == covered[2:-1:2]
        for seen, kept in spans:
            assert seen.start % 32 == 0 and kept.start < kept.stop
            assert -(seen.start - seen.stop) == length or (seen.stop == n and length - 32 < n - seen.start <= length)
            assert seen.start == 0 or kept.start - seen.start >= tiling.MARGIN
            assert seen.stop == n or seen.stop - kept.stop >= tiling.MARGIN


def test_more_memory_is_not_more_work():
    work = []
    for max_pixels in (SMALLEST, 10**6, 4 * 10**6, 16 * 10**6):
        shape = tiling.tile_shape((8336, 12000), max_pixels)
        work.append(tiling.tile_count((8336, 12000), shape) * shape[0] * shape[1] / (8336 * 12000))
    assert work == sorted(work, reverse=True) and work[1] < 2.5 and work[-1] < 1.3
