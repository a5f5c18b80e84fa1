"""The network applied to images larger than memory allows at once: in tiles, with the result of the whole image."""

import math

import numpy as np

import network

# Bytes that applying the network takes for each pixel that it sees at once, and bytes of the process without: measured
# as peak resident memory over 0.4 to 8 megapixels, float32 on a CPU without AVX-512; bfloat16 takes two thirds.
BYTES_PER_PIXEL = 1450
BYTES_OF_PROCESS = 700 * 2**20

# How many pixels the network sees at once, at most, though memory may allow more: nothing larger has been measured.
MAX_PIXELS = 2**23
# The same for any network, made `layers.in_strips` or not. Without, oneDNN copies every channel 9 times on CPUs that
# lack AVX-512, and from 1 GiB of copies on, after 1.2 megapixels, takes an implementation a hundred times slower.
_MAX_PIXELS_OF_ANY = 2**20

# How far a tile sees beyond what is kept of its result: as far as the network does, in whole steps of its poolings.
MARGIN = math.ceil(network.receptive_field() / network.MULTIPLE) * network.MULTIPLE


def denoise(net, x, max_pixels=_MAX_PIXELS_OF_ANY):
    """The network applied to one float image [3, H, W] of any size, at most about `max_pixels` at once."""
    y = np.empty_like(x)
    for rows, columns, tile in run_tiles(net, lambda r, c: x[:, r, c], x.shape[1:], max_pixels):
        y[:, rows, columns] = tile
    return y


def run_tiles(net, crop, size, max_pixels):
    """Yields (slice of rows, slice of columns, the network's output float32 [3, h, w] there), which cover the image.

    crop(rows, columns) -> float32 [3, h, w] of the image of `size` (height, width).

    The result equals that of the whole image but for rounding. Tiles start at multiples of 32, where the whole image's
    2x2 poolings meet too, and what is nearer than MARGIN to a side of a tile that is not the image's is not kept. All
    tiles have one shape, so that memory that was taken for one serves for all; those at the right and bottom end with
    the image, and there the network pads them by reflection as it would the image.
    """
    shape = tile_shape(size, max_pixels)
    for rows, kept_rows in _spans(size[0], shape[0]):
        for columns, kept_columns in _spans(size[1], shape[1]):
            y = net.run(crop(rows, columns)[None])[0]
            yield kept_rows, kept_columns, y[:, _within(kept_rows, rows), _within(kept_columns, columns)]


def tile_shape(size, max_pixels):
    """(height, width) of the tiles that cover an image of `size` with the least work, multiples of 32.

    Of at most `max_pixels`, or the smallest there are.
    """
    heights, widths = (_lengths(n) for n in size)
    work = {
        (height, width): rows * columns * height * width
        for height, rows in heights.items()
        for width, columns in widths.items()
        if height * width <= max_pixels
    }
    return min(work, key=work.get, default=(min(heights), min(widths)))


def tile_count(size, shape):
    """How many tiles of `shape` cover an image of `size`."""
    return math.prod(len(_spans(n, length)) for n, length in zip(size, shape))


def _padded(n):
    return math.ceil(n / network.MULTIPLE) * network.MULTIPLE


def _lengths(n):
    """{length of a tile: how many cover n pixels}: for every number of tiles the shortest that do, longest first."""
    lengths, total, smallest = {}, _padded(n), 2 * MARGIN + network.MULTIPLE
    for count in range(1, math.ceil(total / network.MULTIPLE) + 1):
        length = _padded((total + 2 * MARGIN * (count - 1)) / count)
        if length < smallest and count > 1:
            break
        lengths.setdefault(length, count)
    return lengths


def _spans(n, length):
    """[(slice that a tile sees, slice of it that is kept), ...] along a side of n pixels."""
    total, step = _padded(n), length - 2 * MARGIN
    if length >= total:
        return [(slice(0, n), slice(0, n))]
    starts = [min(start, total - length) for start in range(0, total - length + step, step)]
    ends = [start + length - MARGIN for start in starts[:-1]] + [n]
    return [(slice(s, min(s + length, n)), slice(b, e)) for s, b, e in zip(starts, [0, *ends], ends)]


def _within(part, whole):
    return slice(part.start - whole.start, part.stop - whole.start)
