"""Image files as 8-bit RGB or greyscale, for training data and validation.

A file with samples, pages or channels that 8-bit RGB cannot keep is refused. A note names the file if only precision,
metadata or transparency is lost.
"""

import sys

import numpy as np
from tqdm import tqdm

import dnnlib
from imaging import image_files, images, pages


def read_header(path):
    """Return (mode as stored, (width, height) of the upright image in pixels) from the header of an image file.

    Raises UserError if the file is broken, `images.Refused` if 8-bit RGB cannot keep it.
    """
    with image_files.open_source(path) as source:
        _check(path, source)
        height, width = source.size
        return source.mode, (height, width) if source.orientation in (5, 6, 7, 8) else (width, height)


def print_note(text):
    """Print a note on stderr, above any progress bar."""
    tqdm.write(f"note: {text}", file=sys.stderr)


def read_rgb(path, note=print_note):
    """Read an image file as uint8 [3, H, W]: grey is repeated, 16 bits are scaled to 8, alpha is laid on white.

    note: Function that is called with a line for everything that is lost. Raises the errors of `read_header`.
    """
    with image_files.open_source(path) as source:
        _check(path, source)
        page = source.read(0)
    losses = list(page.kind.losses)
    if page.samples.dtype == np.uint16:
        doubt = pages.range_doubt(page)
        if doubt:
            raise images.Refused(f"{path}: {doubt}; rescale them to 8 bits or to all of 16")
        losses.append("its 16 bits a channel become 8")
    rgb = _to_uint8(page.colours).transpose(2, 0, 1)
    if page.alpha is not None and not np.all(page.alpha == np.iinfo(page.samples.dtype).max):
        losses.append("its alpha is laid on white")
        rgb = _on_white(rgb, _to_uint8(page.alpha), page.kind.tiff.get("extrasamples") == (1,))
    for loss in losses:
        note(f"{path}: {loss}")
    return np.broadcast_to(rgb, [3, *page.size])


def read(path, channels, note=print_note):
    """Read an image file as `read_rgb` does, as uint8 [channels, H, W]; with one channel, colour becomes grey."""
    pixels = read_rgb(path, note)
    return images.to_grey(pixels) if channels == 1 else pixels


def all_grey(folder):
    """Whether the images of a folder that can be read are grey: stored so, or with equal channels."""
    seen = False
    for path in images.list_images(folder, tell=False):
        try:
            if not images.is_grey(read_rgb(path, note=lambda text: None)):
                return False
            seen = True
        except dnnlib.UserError:  # `validation` says what it leaves out.
            continue
    return seen


def _check(path, source):
    if source.pages > 1:
        raise images.Refused(f"{path}: a stack of {source.pages} pages; save each page as a file")
    if source.mode == "F":
        raise images.Refused(f"{path}: floating-point samples; convert them to 8 or 16 bits")


def _to_uint8(samples):
    return samples if samples.dtype == np.uint8 else (samples / np.float32(257) + np.float32(0.5)).astype(np.uint8)


def _on_white(rgb, alpha, premultiplied):
    """Composite uint8 [C, H, W] with alpha uint8 [H, W] on white. premultiplied: whether colours contain alpha."""
    weight = alpha / np.float32(255)
    colour = rgb if premultiplied else rgb * weight
    return np.clip(colour + 255 * (1 - weight) + 0.5, 0, 255).astype(np.uint8)
