"""Pages of image files as they are stored, and their way to the network and back.

A page keeps its samples in their own type. Parts of it become the network's float32 as they are needed, so that a large
image costs no float copy of itself.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from PIL import Image


@dataclasses.dataclass
class Kind:
    """How a page is stored: what is to be the same again in the file that is written.

    bilevel: black and white only; the samples are expanded to 0 and 255.
    sample_range: the samples that are black and white, as the user says; None: see `Page.range`.
    palette: (uint8 [n, 4] RGBA, uint8 [H, W] indices into it) or None; the samples are those of the colours.
    exif, icc: bytes or None. dpi: pair of numbers or None. tiff: what tiff_files.py wants to know again.
    losses: what of the file cannot be kept, in words.
    """

    bilevel: bool = False
    sample_range: tuple | None = None
    palette: Any = None
    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple | None = None
    tiff: dict = dataclasses.field(default_factory=dict)
    losses: list = dataclasses.field(default_factory=list)


class Page:
    """samples: uint8, uint16 or floating-point [H, W, C], C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""

    def __init__(self, samples, kind):
        self.samples, self.kind = samples, kind

    @property
    def size(self):
        """(height, width)."""
        return self.samples.shape[:2]

    @property
    def colours(self):
        """The samples without alpha: [H, W, 1 or 3]."""
        return self.samples[..., : 3 if self.samples.shape[2] > 2 else 1]

    @property
    def alpha(self):
        """[H, W] as stored, or None."""
        return None if self.samples.shape[2] % 2 else self.samples[..., -1]

    @property
    def is_float(self):
        return self.samples.dtype.kind == "f"

    @property
    def range(self):
        """The samples that are black and white: by default 0 and 1, or 0 and the largest of a type of whole numbers."""
        return self.kind.sample_range or (0.0, 1.0 if self.is_float else float(np.iinfo(self.samples.dtype).max))

    def blank(self):
        """A page of the same kind, its alpha copied, its colours to be filled by `put`."""
        page = Page(np.empty_like(self.samples), self.kind)
        if self.alpha is not None:
            page.samples[..., -1] = self.alpha
        return page

    def crop(self, rows, columns):
        """The slices `rows`, `columns` as the network sees them: float32 [3, h, w], -0.5 black, 0.5 white.

        Grey is repeated. Samples beyond the range stay beyond it; those that are not finite become -0.5.
        """
        black, white = self.range
        part = np.moveaxis(self.colours[rows, columns], -1, 0)
        part = part.astype(np.promote_types(part.dtype, np.float32))
        with np.errstate(over="ignore"):  # What does not fit in a float32 is not finite either.
            x = ((part - black) / (white - black) - 0.5).astype(np.float32)
        if self.is_float:
            x[~np.isfinite(x)] = -0.5
        return np.broadcast_to(x, [3, *x.shape[1:]])

    def put(self, rows, columns, y, source):
        """Fills a part with `y`, float32 [3, h, w] on the scale of `crop`. source: the page that it was made from.

        Whole numbers are rounded, and clipped to what their type holds. Floating-point samples change by what the
        network changed: where it changed nothing they are the source's to the last bit, and where the source is not
        finite they are not either.
        """
        black, white = self.range
        if self.is_float:
            change = self._as_stored(y - source.crop(rows, columns)) * (white - black)
            self.colours[rows, columns] = source.colours[rows, columns] + change
        else:
            samples = (self._as_stored(y) + 0.5) * (white - black) + black
            self.colours[rows, columns] = np.clip(samples + 0.5, 0, np.iinfo(self.samples.dtype).max)

    def _as_stored(self, y):
        y = np.moveaxis(y, 0, -1)
        return y if self.colours.shape[2] == 3 else y.mean(axis=-1, keepdims=True)


def parts(length, step):
    """Slices of up to `step` that cover `length`."""
    return [slice(i, min(i + step, length)) for i in range(0, length, step)]


def to_palette(page):
    """8-bit page -> (uint8 [H, W] indices, uint8 [n, 4] RGBA palette), or None where no palette can hold its alpha.

    The source's own where the pixels are as they were, else 256 colours fitted to them, without dither, which would be
    noise again; where some pixels are transparent, 255 and one.
    """
    entries, indices = page.kind.palette if page.kind.palette else (None, None)
    if entries is not None and all(
        np.array_equal(entries[indices[rows], : page.samples.shape[2]], page.samples[rows])
        for rows in parts(page.size[0], 256)
    ):
        return indices, entries
    transparent = None if page.alpha is None else page.alpha == 0
    if transparent is not None and not np.all(transparent | (page.alpha == 255)):
        return None
    rgb = np.broadcast_to(page.colours, [*page.size, 3])
    fitted = Image.fromarray(np.ascontiguousarray(rgb)).quantize(256 - (transparent is not None), dither=0)
    entries = np.array(fitted.getpalette(), np.uint8).reshape(-1, 3)
    entries = np.column_stack([entries, np.full(len(entries), 255, np.uint8)])
    indices = np.array(fitted)
    if transparent is not None:
        indices[transparent] = len(entries)
        entries = np.concatenate([entries, np.zeros([1, 4], np.uint8)])
    return indices, entries


def range_doubt(page):
    """Words that tell why black and white of `page` are hardly what its range says; None where they may be.

    They are doubtful where the samples lie far beyond the range, or all in its lowest quarter: 12 bits stored in 16.
    """
    if page.samples.dtype == np.uint8 and page.kind.sample_range is None:
        return None
    black, white = page.range
    step = math.ceil(math.sqrt(math.prod(page.size)) / 1024)
    sampled = _finite(page.colours[::step, ::step])
    if not sampled.size:
        return None
    ends = [(part.min(), part.max()) for p in parts(page.size[0], 256) if (part := _finite(page.colours[p])).size]
    low, high = min(a for a, _ in ends), max(b for _, b in ends)
    darkest, brightest = np.percentile(sampled, (1, 99))  # A few hot pixels are no sign of another range.
    margin = (white - black) / 2  # Strong noise reaches beyond the range, too.
    beyond = darkest < black - margin or brightest > white + margin
    if beyond or low < high <= black + margin / 2:
        return f"its samples reach from {low:g} to {high:g}, but black is taken for {black:g} and white for {white:g}"
    return None


def _finite(samples):
    return samples[np.isfinite(samples)].astype(np.float64)
