"""Image files as RGB or greyscale samples, for training data and validation.

A file with samples, pages or channels that cannot be kept is refused. A note names the file if only precision, metadata
or transparency is lost.
"""

import sys
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import dnnlib
from imaging import image_files, images, pages

_STACKS = "dataset_tool_tf.py takes them by --frames scenes or --frames shots; else save each page as a file"


class Frame(NamedTuple):
    """A page of a stack, which may stand where the path of an image is expected."""

    path: str
    page: int
    pages: int

    def __str__(self):
        return f"{self.path}, page {self.page + 1} of {self.pages}"


def read_header(frame):
    """Return (mode as stored, (width, height) of the upright image in pixels) from the header of an image file.

    Raises UserError if the file is broken, `images.Refused` if it is a stack of which no page is named.
    """
    with image_files.open_source(_path_of(frame), page=_page_of(frame)) as source:
        _check_pages(frame, source)
        height, width = source.size
        return source.mode, (height, width) if source.orientation in (5, 6, 7, 8) else (width, height)


def stored_as(path):
    """Return (type of the samples, one of `scale.FULL_RANGES`; number of pages) of an image file."""
    with image_files.open_source(path) as source:
        return source.dtype, source.pages


def print_note(text):
    """Print a note on stderr, above any progress bar."""
    tqdm.write(f"note: {text}", file=sys.stderr)


def read_rgb(frame, note=print_note):
    """Read an image file as uint8 [3, H, W]: grey is repeated, 16 bits are scaled to 8, alpha is laid on white.

    Args:
        frame: Path or Frame.
        note: Function that is called with a line for everything that is lost.

    Raises:
        UserError: See `read_header`.
        images.Refused: Also for floating-point samples, and for 16 bits of which few are used.
    """
    page = _read_page(frame)
    if page.is_float:
        raise images.Refused(f"{frame}: floating-point samples; convert them to 8 or 16 bits")
    losses = list(page.kind.losses)
    if page.samples.dtype == np.uint16:
        doubt = pages.range_doubt(page)
        if doubt:
            raise images.Refused(f"{frame}: {doubt}; rescale them to 8 bits or to all of 16")
        losses.append("its 16 bits a channel become 8")
    rgb = _to_uint8(page.colours).transpose(2, 0, 1)
    if page.alpha is not None and not np.all(page.alpha == np.iinfo(page.samples.dtype).max):
        losses.append("its alpha is laid on white")
        rgb = _on_white(rgb, _to_uint8(page.alpha), page.kind.tiff.get("extrasamples") == (1,))
    for loss in losses:
        note(f"{frame}: {loss}")
    return np.broadcast_to(rgb, [3, *page.size])


def read(frame, channels, note=print_note):
    """Read an image file as `read_rgb` does, as uint8 [channels, H, W]; with one channel, colour becomes grey."""
    pixels = read_rgb(frame, note)
    return images.to_grey(pixels) if channels == 1 else pixels


def read_samples(frame, channels, note=print_note):
    """Read an image file with its samples as stored: uint8, as `read` does, uint16 or float32 [channels, H, W].

    Raises the errors of `read_header`, and `images.Refused` for NaN and infinities.
    """
    page = _read_page(frame)
    if page.samples.dtype == np.uint8:
        return read(frame, channels, note)
    losses = list(page.kind.losses)
    if page.alpha is not None:
        losses.append("its alpha is left out")
    if page.samples.dtype == np.float64:
        losses.append("its samples of 64 bits become float32")
    samples = page.colours.transpose(2, 0, 1)
    if page.is_float:
        with np.errstate(over="ignore"):
            samples = samples.astype(np.float32)
        if not np.isfinite(samples).all():
            raise images.Refused(f"{frame}: some of its samples are NaN, infinite or too large; replace them")
    for loss in losses:
        note(f"{frame}: {loss}")
    if channels == 1 and len(samples) == 3:
        return images.to_grey(samples)
    return np.broadcast_to(samples, [channels, *page.size])


def all_grey(folder):
    """Whether the images of a folder that can be read are grey: stored so, or with equal channels."""
    seen = False
    for path in images.list_images(folder, tell=False):
        try:
            if not _read_page(path).is_grey():
                return False
            seen = True
        except dnnlib.UserError:  # `validation` says what it leaves out.
            continue
    return seen


def _path_of(frame):
    return frame.path if isinstance(frame, Frame) else frame


def _page_of(frame):
    return frame.page if isinstance(frame, Frame) else None


def _check_pages(frame, source):
    if source.pages > 1 and not isinstance(frame, Frame):
        raise images.Refused(f"{frame}: a stack of {source.pages} pages; {_STACKS}")


def _read_page(frame):
    path = _path_of(frame)
    try:
        with image_files.open_source(path, page=_page_of(frame)) as source:
            _check_pages(frame, source)
            return source.read(_page_of(frame) or 0)
    except dnnlib.UserError as error:
        raise type(error)(str(error).replace(path, str(frame), 1)) from None


def _to_uint8(samples):
    return samples if samples.dtype == np.uint8 else (samples / np.float32(257) + np.float32(0.5)).astype(np.uint8)


def _on_white(rgb, alpha, premultiplied):
    """Composite uint8 [C, H, W] with alpha uint8 [H, W] on white. premultiplied: whether colours contain alpha."""
    weight = alpha / np.float32(255)
    colour = rgb if premultiplied else rgb * weight
    return np.clip(colour + 255 * (1 - weight) + 0.5, 0, 255).astype(np.uint8)
