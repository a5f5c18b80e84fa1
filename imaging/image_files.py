"""Image files of every kind, read with everything that belongs to them, and written back as the same kind.

tiff_files.py reads and writes TIFF, with its stacks and floating-point samples; pillow_files.py the other formats;
array_files.py reads NumPy files.
"""

import contextlib
import math

import numpy as np

import dnnlib
from imaging import array_files, images, pillow_files, tiff_files
from imaging.pages import Kind, Page, Source, to_palette

# What formats can hold besides 8-bit grey and RGB. A page that a format cannot hold is refused, so that nothing is lost
# silently. Palettes and bilevel images are only ways of storing: they become RGB and grey in formats without them.
_ALPHA = ("PNG", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA")
_SIXTEEN_BIT = ("PNG", "TIFF", "PPM")
_METADATA = ("PNG", "TIFF", "JPEG", "WEBP", "AVIF")
_MAX_SIDE = {"WEBP": 16383, "JPEG": 65500}  # Pixels.


@contextlib.contextmanager
def open_source(path, sample_range=None, page=None):
    """Open an image file as a Source. Only headers are read; `Source.read` decodes.

    Args:
        path: Image file.
        sample_range: (black, white) sample values; None: the default of `Page.range`.
        page: The page that is to be read; None: all. The others are not checked, which takes long in long stacks.

    Raises:
        UserError: The file is broken or of an unknown kind.
    """
    with images.readable(path, also=tiff_files.ERRORS):
        tiff = tiff_files.open_tiff(path, page)
    if tiff is None:
        arrays = array_files.open_source(path, sample_range)
        yield pillow_files.open_source(path, sample_range) if arrays is None else arrays
        return
    with tiff:

        def read(index):
            with images.readable(path, also=tiff_files.ERRORS):
                page = tiff.pages[index]
                return tiff_files.to_page(page, page.asarray(), sample_range)

        largest = tiff.pages[page] if page is not None else max(tiff.pages, key=lambda page: page.nbytes)
        size, (mode, orientation) = (largest.imagelength, largest.imagewidth), tiff_files.first_page(tiff)
        dtype = tiff.pages[0].dtype
        dtype = "float32" if dtype.kind == "f" else "uint16" if dtype == np.uint16 else "uint8"
        yield Source(len(tiff.pages), size, largest.nbytes, read, mode, orientation, dtype)


def read_float(path: str, sample_range: tuple[float, float] | None = None) -> tuple[np.ndarray, Page]:
    """Read an image file as an array; `write_float` writes the same kind again.

    Args:
        path: Image file. Only the first page of a stack is read.
        sample_range: (black, white) sample values; None: the default of `Page.range`.

    Returns:
        (float32 [3, H, W] in [-0.5, 0.5], Page). `page.kind.losses` lists what cannot be kept.
    """
    with open_source(path, sample_range) as source:
        page = source.read(0)
    return np.array(page.crop(slice(None), slice(None))), page


def write_float(path: str, x: np.ndarray, page: Page | None = None) -> None:
    """Write float [3, H, W] in [-0.5, 0.5] as an image of the same kind as `page`; None: 8-bit RGB.

    The suffix of `path` selects the format. Raises UserError if it is unknown or cannot hold that kind.
    """
    page = page or Page(np.empty([*x.shape[1:], 3], np.uint8), Kind())
    check_holds(path, page)
    result = page.blank()
    result.put(slice(None), slice(None), x, source=page)
    with page_writer(path) as write:
        write(result)


def check_holds(path, page, pages=1):
    """Raise UserError if the format of `path` cannot hold `page`, or that many `pages`. Call it before the work."""
    fmt, (height, width) = images.format_of(path), page.size
    what, use = None, ".png or .tif"
    if pages > 1 and fmt != "TIFF":
        what, use = f"a stack of {pages} pages", ".tif"
    elif page.is_float and fmt != "TIFF":
        what, use = "floating-point samples", ".tif"
    elif page.samples.dtype == np.uint16 and fmt not in _SIXTEEN_BIT:
        what = "16 bits a channel"
    elif fmt == "GIF" and page.samples.shape[2] > 1 and not (page.kind.palette and to_palette(page)):
        what = "more than a palette"
    elif page.alpha is not None and fmt not in (*_ALPHA, "GIF"):
        what = "alpha"
    elif max(height, width) > _MAX_SIDE.get(fmt, math.inf):
        what = f"{width}x{height} pixels"
    if what:
        raise dnnlib.UserError(f"{path}: {fmt} cannot hold {what}; use {use}")


def losses(path, page):
    """Describe what the file `path` cannot keep of `page`, as a list of sentences. Pixels are always kept."""
    kind, fmt = page.kind, images.format_of(path)
    result = list(kind.losses)
    for name, value in (("EXIF data", kind.exif), ("colour profile", kind.icc)):
        if value and fmt not in _METADATA:
            result.append(f"{fmt} does not keep its {name}")
    tags = {tag[0] for tag in kind.tiff.get("extratags", ())}
    if fmt != "TIFF" and not kind.icc and tiff_files.COLOUR_TAGS & tags:
        result.append(f"{fmt} does not keep its transfer function or chromaticities")
    return result


@contextlib.contextmanager
def page_writer(path, nbytes=0):
    """Yield a function write(page) to call for each page; the file appears under its name when all are written.

    nbytes: approximate size of the file in bytes. Large TIFF files need it.
    """
    if images.format_of(path) == "TIFF":
        with tiff_files.page_writer(path, nbytes) as write:
            yield write
    else:
        yield lambda page: pillow_files.write(path, page)
