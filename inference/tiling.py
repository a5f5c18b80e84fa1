"""Inference in tiles: images larger than memory allows, with the result of the whole image."""

import math

import numpy as np

import network

# Memory in bytes for each pixel of a tile, and for the rest of the process. Measured as peak resident memory for 0.4
# to 8 megapixels in float32 on a CPU without AVX-512; bfloat16 takes two thirds.
BYTES_PER_PIXEL = 1450
BYTES_OF_PROCESS = 700 * 2**20

# Maximum pixels of a tile, even if memory allows more: larger tiles have not been measured.
MAX_PIXELS = 2**23
# Maximum pixels of a tile for networks made without `layers.in_strips`. On CPUs without AVX-512, oneDNN copies every
# channel of these 9 times, and above 1 GiB of copies (1.2 megapixels) it uses code that is a hundred times slower.
_MAX_PIXELS_OF_ANY = 2**20

# Margin in pixels around the part of a tile that is kept: the receptive field, rounded up to a multiple of 32.
MARGIN = math.ceil(network.receptive_field() / network.MULTIPLE) * network.MULTIPLE


def denoise(net, x: np.ndarray, max_pixels: int = _MAX_PIXELS_OF_ANY) -> np.ndarray:
    """Return the network's output for one float image [C, H, W] of any size, in tiles of about `max_pixels` at most."""
    y = np.empty_like(x)
    for rows, columns, tile in run_tiles(net, lambda r, c: x[:, r, c], x.shape[1:], max_pixels):
        y[:, rows, columns] = tile
    return y


def run_tiles(net, crop, size, max_pixels):
    """Run the network on an image in tiles.

    The result equals that of the whole image up to rounding. Tiles start at multiples of 32, so that their poolings
    coincide with the whole image's, and a margin of MARGIN pixels is dropped at the sides inside the image. All tiles
    have the same shape, so that they share memory. Tiles at the right and bottom end with the image; the network pads
    them by reflection, as it pads the image.

    Args:
        net: The network.
        crop: Function (rows, columns) -> float32 [C, h, w] of the image.
        size: (height, width) of the image.
        max_pixels: Maximum number of pixels of a tile, see `tile_shape`.

    Yields:
        (slice of rows, slice of columns, output float32 [C, h, w]); together they cover the image.
    """
    shape = tile_shape(size, max_pixels)
    for rows, kept_rows in _spans(size[0], shape[0]):
        for columns, kept_columns in _spans(size[1], shape[1]):
            y = net.run(crop(rows, columns)[None])[0]
            yield kept_rows, kept_columns, y[:, _within(kept_rows, rows), _within(kept_columns, columns)]


def tile_shape(size, max_pixels):
    """Return the (height, width) of tiles that cover an image of `size` with the least work, multiples of 32.

    A tile has at most `max_pixels`, unless even the smallest possible tile has more.
    """
    heights, widths = (_lengths(n) for n in size)
    work = {
        (height, width): rows * columns * height * width
        for height, rows in heights.items()
        for width, columns in widths.items()
        if height * width <= max_pixels
    }
    return min(work, key=work.__getitem__, default=(min(heights), min(widths)))


def tile_count(size, shape):
    """Return the number of tiles of `shape` that cover an image of `size`."""
    return math.prod(len(_spans(n, length)) for n, length in zip(size, shape))


def _padded(n):
    return math.ceil(n / network.MULTIPLE) * network.MULTIPLE


def _lengths(n):
    """Return {length of a tile: number of tiles that cover n pixels}, the shortest length for each number of tiles."""
    lengths, total, smallest = {}, _padded(n), 2 * MARGIN + network.MULTIPLE
    for count in range(1, math.ceil(total / network.MULTIPLE) + 1):
        length = _padded((total + 2 * MARGIN * (count - 1)) / count)
        if length < smallest and count > 1:
            break
        lengths.setdefault(length, count)
    return lengths


def _spans(n, length):
    """Return [(slice of a tile, slice of it that is kept), ...] along a side of n pixels."""
    total, step = _padded(n), length - 2 * MARGIN
    if length >= total:
        return [(slice(0, n), slice(0, n))]
    spans, covered = [], 0
    while covered < n:
        start = min(len(spans) * step, total - length)
        kept_to = n if start + length == total else start + length - MARGIN
        spans.append((slice(start, min(start + length, n)), slice(covered, kept_to)))
        covered = kept_to
    return spans


def _within(part, whole):
    return slice(part.start - whole.start, part.stop - whole.start)
