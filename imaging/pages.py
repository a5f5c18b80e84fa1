"""Pages of image files as they are stored, and their conversion to and from the network's float32.

A page keeps its samples in their stored type. Only the parts in use are converted, so that a large image needs no float
copy of itself.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from imaging import images, scale


@dataclasses.dataclass
class Source:
    """An open image file.

    Attributes:
        pages: Number of pages.
        size: (height, width) of the largest page in pixels, as stored.
        nbytes: Bytes of the samples of the largest page.
        read: Function read(index) that decodes a page and returns a Page.
        mode: How the first page is stored, as Pillow names it: "RGB", "L", "I;16", "F".
        orientation: EXIF orientation of the first page, 1 to 8.
        dtype: Type of the samples of the first page, one of `scale.FULL_RANGES`; "float32" stands for all floats.
    """

    pages: int
    size: tuple
    nbytes: int
    read: Callable
    mode: str
    orientation: int
    dtype: str


@dataclasses.dataclass
class Kind:
    """How a page is stored: everything that the written file takes over from the file that was read.

    Attributes:
        bilevel: Whether the page is black and white only; its samples are expanded to 0 and 255.
        sample_range: (black, white) sample values that the user gave; None: the default of `Page.range`.
        palette: (uint8 [n, 4] RGBA, uint8 [H, W] indices into it) or None. The samples of the page are the colours.
        exif, icc: EXIF data and colour profile, bytes or None.
        dpi: Resolution, a pair of numbers or None.
        tiff: How tiff_files.py stores the page.
        losses: What cannot be kept of the file, a list of sentences.
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
    """One image as stored: its samples and its kind.

    samples: uint8, uint16 or floating-point [H, W, C]; C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    """

    def __init__(self, samples, kind):
        self.samples, self.kind = samples, kind

    @property
    def size(self):
        """(height, width) in pixels."""
        return self.samples.shape[:2]

    @property
    def colours(self):
        """The samples without alpha: [H, W, 1 or 3]."""
        return self.samples[..., : 3 if self.samples.shape[2] > 2 else 1]

    @property
    def alpha(self):
        """The alpha samples [H, W], or None."""
        return None if self.samples.shape[2] % 2 else self.samples[..., -1]

    @property
    def is_float(self):
        return self.samples.dtype.kind == "f"

    @property
    def dtype(self):
        """Type of the samples, one of `scale.FULL_RANGES`; "float32" stands for all floats."""
        return "float32" if self.is_float else self.samples.dtype.name

    @property
    def range(self):
        """(black, white) sample values. The default is (0, 1) for floats and (0, largest value) for integers."""
        return self.kind.sample_range or scale.FULL_RANGES[self.dtype]

    def blank(self):
        """Return a page of the same kind and alpha, whose colours `put` fills."""
        page = Page(np.empty_like(self.samples), self.kind)
        if self.alpha is not None:
            page.samples[..., -1] = self.alpha
        return page

    def is_grey(self):
        """Whether the page is grey: it has one colour channel, or equal ones."""
        return all(images.is_grey(np.moveaxis(self.colours[rows], -1, 0)) for rows in parts(self.size[0], 256))

    def crop(self, rows, columns, channels=3):
        """Return a part as the network sees it: float32 [channels, h, w], -0.5 is black, 0.5 is white.

        Grey is repeated for a network of three channels; one of one channel takes grey pages only. Samples outside the
        range stay outside it; samples that are not finite become -0.5.

        Args:
            rows, columns: Slices.
        """
        black, white = self.range
        part = np.moveaxis(self.colours[rows, columns, :channels], -1, 0)
        part = part.astype(np.promote_types(part.dtype, np.float32))
        with np.errstate(over="ignore"):  # Values too large for float32 become infinite.
            x = ((part - black) / (white - black) - 0.5).astype(np.float32)
        if self.is_float:
            x[~np.isfinite(x)] = -0.5
        return np.broadcast_to(x, [channels, *x.shape[1:]])

    def put(self, rows, columns, y, source):
        """Fill a part with the output of the network.

        Integer samples are rounded and clipped to the range of their type. The network's change is added to
        floating-point samples: where it changes nothing they equal the source exactly, and they stay non-finite where
        the source is.

        Args:
            rows, columns: Slices.
            y: float32 [C, h, w] on the scale of `crop`; C = 1 fills all colours alike.
            source: Page that the input of the network came from.
        """
        black, white = self.range
        if self.is_float:
            change = self._as_stored(y - source.crop(rows, columns, len(y))) * (white - black)
            self.colours[rows, columns] = source.colours[rows, columns] + change
        else:
            samples = (self._as_stored(y) + 0.5) * (white - black) + black
            self.colours[rows, columns] = np.clip(samples + 0.5, 0, np.iinfo(self.samples.dtype).max)

    def _as_stored(self, y):
        y = np.moveaxis(y, 0, -1)
        return y if self.colours.shape[2] == 3 else y.mean(axis=-1, keepdims=True)


def parts(length, step):
    """Return slices of at most `step` elements that cover `length` elements."""
    return [slice(i, min(i + step, length)) for i in range(0, length, step)]


def to_palette(page):
    """Return an 8-bit page as (uint8 [H, W] indices, uint8 [n, 4] RGBA palette); None if its alpha has levels.

    The palette of the source is kept if the pixels did not change. Otherwise 256 colours are fitted to them, or 255 and
    a transparent one. They are not dithered, because dither is noise.
    """
    if page.kind.palette:
        entries, indices = page.kind.palette
        channels = page.samples.shape[2]
        if all(np.array_equal(entries[row, :channels], samples) for row, samples in zip(indices, page.samples)):
            return indices, entries
    transparent = None if page.alpha is None else page.alpha == 0
    if transparent is not None and not np.all(transparent | (page.alpha == 255)):
        return None
    rgb = np.broadcast_to(page.colours, [*page.size, 3])
    fitted = Image.fromarray(np.ascontiguousarray(rgb)).quantize(
        256 - (transparent is not None), dither=Image.Dither.NONE
    )
    entries = np.array(fitted.getpalette(), np.uint8).reshape(-1, 3)
    entries = np.column_stack([entries, np.full(len(entries), 255, np.uint8)])
    indices = np.array(fitted)
    if transparent is not None:
        indices[transparent] = len(entries)
        entries = np.concatenate([entries, np.zeros([1, 4], np.uint8)])
    return indices, entries


def range_doubt(page):
    """Explain why the range of `page` is probably wrong; None if it looks right. See `scale.range_doubt`."""
    if page.samples.dtype == np.uint8 and page.kind.sample_range is None:
        return None
    black, white = page.range
    step = math.ceil(math.sqrt(math.prod(page.size)) / 1024)
    sampled = _finite(page.colours[::step, ::step])
    if not sampled.size:
        return None
    finite = (_finite(page.colours[rows]) for rows in parts(page.size[0], 256))
    ends = [end for part in finite if part.size for end in (part.min(), part.max())]
    low, high = min(ends), max(ends)
    return scale.range_doubt(black, white, low, high, *np.percentile(sampled, (1, 99)))


def _finite(samples):
    return samples[np.isfinite(samples)].astype(np.float64)
