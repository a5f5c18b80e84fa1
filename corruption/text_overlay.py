"""Random text over images: the corruption of watermarks and captions."""

import functools
import os
import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

import dnnlib

_CHARACTERS = string.ascii_letters + string.digits
_LENGTHS = (2, 16)  # Characters of a string, the fewest and the most.


class TextOverlay:
    """Writes random strings over images, in random fonts, sizes, colours and places."""

    def __init__(self, font_size, font_dir):
        """font_size: (smallest, largest) in pixels; font_dir: a folder of .ttf and .otf files, None for Pillow's font.

        UserError if there is no font to write with.
        """
        if not features.check("freetype2"):
            raise dnnlib.UserError("noise 'text' needs a Pillow with FreeType; pip install --force-reinstall pillow")
        self.font_size = font_size
        self._paths = _list_fonts(font_dir) if font_dir else [None]
        self._font = functools.lru_cache(maxsize=1024)(_load_font)
        self._glyph = functools.lru_cache(maxsize=1 << 17)(self._draw_glyph)
        for path in self._paths:
            if self._font(path, font_size[1]).getmask(_CHARACTERS).getbbox() is None:
                raise dnnlib.UserError(f"{path}: this font has no letters")

    def write(self, x, p, rng):
        """Float [C, H, W] in [-0.5, 0.5] -> a copy of which about the part p is under text, all drawn from `rng`.

        A pixel counts as soon as any ink is on it. The last string stays only if that comes closer to p.
        """
        y, covered, area = np.array(x), np.zeros(x.shape[1:], bool), 0
        wanted = p * covered.size
        while area < wanted:
            ink, colour = self._draw_string(rng), rng.uniform(-0.5, 0.5, [len(y), 1, 1])
            place, inside = zip(*(_overlap(*lengths, rng) for lengths in zip(ink.shape, covered.shape)))
            ink = ink[inside]
            added = np.count_nonzero((ink > 0) & ~covered[place])
            if area + added - wanted > wanted - area:
                break
            area += added
            covered[place] |= ink > 0
            part = y[(slice(None), *place)]
            part += (colour - part) * ink
        return y

    def _draw_string(self, rng):
        """The opacity of a random string in a random font and size, in 0..1, float32 [h, w]."""
        path = self._paths[rng.integers(len(self._paths))]
        size = int(rng.integers(self.font_size[0], self.font_size[1], endpoint=True))
        which = rng.integers(len(_CHARACTERS), size=rng.integers(*_LENGTHS, endpoint=True))
        glyphs = [self._glyph(path, size, _CHARACTERS[k]) for k in which]
        lefts, pen = [], 0
        for _, left, _, advance in glyphs:
            lefts.append(round(pen + left))
            pen += advance
        start, stop = min(lefts), max(left + glyph[0].shape[1] for left, glyph in zip(lefts, glyphs))
        top, bottom = min(glyph[2] for glyph in glyphs), max(glyph[2] + glyph[0].shape[0] for glyph in glyphs)
        line = np.zeros([bottom - top, stop - start], np.uint8)
        for (ink, _, above, _), left in zip(glyphs, lefts):
            place = line[above - top :, left - start :][: ink.shape[0], : ink.shape[1]]
            np.maximum(place, ink, out=place)
        return line / np.float32(255)

    def _draw_glyph(self, path, size, character):
        """(opacity uint8 [h, w], its left and top from where the pen is, how far the pen moves on), in pixels."""
        font = self._font(path, size)
        left, top, right, bottom = font.getbbox(character)
        image = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(image).text((-left, -top), character, fill=255, font=font)
        return np.asarray(image), left, top, font.getlength(character)


def _overlap(length, extent, rng):
    """Puts an interval of `length` anywhere that it meets 0..extent: the slice where they meet, and that within it."""
    start = int(rng.integers(1 - length, extent))
    first, last = max(start, 0), min(start + length, extent)
    return slice(first, last), slice(first - start, last - start)


def _list_fonts(folder):
    if not os.path.isdir(folder):
        raise dnnlib.UserError(f"{folder}: no such folder of fonts")
    names = sorted(n for n in os.listdir(folder) if n.lower().endswith((".ttf", ".otf")))
    if not names:
        raise dnnlib.UserError(f"{folder}: no .ttf or .otf font there")
    return [os.path.join(folder, n) for n in names]


def _load_font(path, size):
    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise dnnlib.UserError(f"{path}: cannot be read as a font ({error})") from None
