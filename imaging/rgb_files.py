"""Image files as 8-bit RGB, which training data and validation are made of.

image_files.py reads them, as for all other programs. A file with samples, pages or channels that 8-bit RGB cannot keep
is refused by name; where only precision or looks are lost, a note says so.
"""

import sys

import numpy as np
from tqdm import tqdm

from imaging import image_files, images, pages


def read_header(path):
    """Returns (mode as stored, (width, height)) of an image as `read_rgb` turns it, from the file's header.

    UserError naming the file if it is broken, `images.Refused` if 8-bit RGB cannot keep it.
    """
    with image_files.open_source(path) as source:
        _check(path, source)
        height, width = source.size
        return source.mode, (height, width) if source.orientation in (5, 6, 7, 8) else (width, height)


def print_note(text):
    """Prints a note to stderr, above a progress bar."""
    tqdm.write(f"note: {text}", file=sys.stderr)


def read_rgb(path, note=print_note):
    """Image file -> uint8 array [3, H, W]. Grey is repeated, 16 bits are scaled to 8, alpha is laid on white.

    note: called with a line that names the file for everything that is lost. Errors are those of `read_header`.
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


def _check(path, source):
    if source.pages > 1:
        raise images.Refused(f"{path}: a stack of {source.pages} pages; save each as a file")
    if source.mode == "F":
        raise images.Refused(f"{path}: floating-point samples; convert them to 8 or 16 bits")


def _to_uint8(samples):
    return samples if samples.dtype == np.uint8 else (samples / np.float32(257) + np.float32(0.5)).astype(np.uint8)


def _on_white(rgb, alpha, premultiplied):
    """uint8 [C, H, W] with alpha uint8 [H, W] as seen before a white ground. premultiplied: by alpha already."""
    weight = alpha / np.float32(255)
    colour = rgb if premultiplied else rgb * weight
    return np.clip(colour + 255 * (1 - weight) + 0.5, 0, 255).astype(np.uint8)
