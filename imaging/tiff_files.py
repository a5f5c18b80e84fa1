"""TIFF files page by page: stacks, 16 bits per channel, floating-point samples, read and written by tifffile.

The written page keeps the tags that describe the picture or its place in a stack, such as those of ImageJ and OME-TIFF,
and the tags that say how it is stored.
"""

import contextlib
import logging
import math
import os

import numpy as np
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG, RESUNIT

import dnnlib
from dnnlib.util import atomic_path, flush_to_disk
from imaging import images
from imaging.pages import Kind, Page, to_palette

# tifffile checks little, so that a damaged file can raise any exception.
ERRORS = (Exception,)
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK)
_DNG_VERSION = 50706
_CONVERT = "convert them to 8 or 16 bits or to float32"
_LOSSLESS = ("NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "ZSTD")
_COMPRESSION = "ADOBE_DEFLATE"  # Used if the source is not a TIFF or its compression is lossy.
_BIG = 2**32 - 2**25  # Bytes; larger files need 64-bit offsets.

# Tags that are copied unchanged: texts of EXIF data; names of document and page; XMP, IPTC, Photoshop, ImageJ,
# MicroManager, GeoTIFF and GDAL.
COLOUR_TAGS = {301, 318, 319}  # Transfer function, white point, chromaticities.
_TEXTS = {271, 272, 305, 306, 315, 33432}  # Maker, model, software, time, artist, copyright.
_COPIED = _TEXTS | COLOUR_TAGS | {269, 270, 285, 297, 316, 700, 33723, 34377, 50838, 50839, 51123}
_COPIED |= {33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113}
_POINTERS = {ExifTags.IFD.Exif: "ExifTag", ExifTags.IFD.GPSInfo: "GPSTag"}  # Tags that point to separate directories.


class _Strict(logging.Filter):
    """Raise an error if a stack ends early, which tifffile only logs, and hide its other log messages."""

    def filter(self, record):
        if "invalid page offset" in record.getMessage():
            raise tifffile.TiffFileError("it ends early")
        return False


logging.getLogger("tifffile").addFilter(_Strict())


def open_tiff(path, page=None):
    """Return an open `tifffile.TiffFile`; None if `path` is not a TIFF file or is left to Pillow, such as 8-bit CMYK.

    page: The page that is to be read; None: all. Besides it only the first is checked.

    Raises UserError for unsupported samples or channels, and Pillow's error for an image with too many pixels.
    """
    with open(path, "rb") as f:
        head = f.read(10)
    if head[:4] not in _MAGIC:
        return None
    tiff = tifffile.TiffFile(path)
    try:
        if head[8:] == b"CR" or _is_raw(tiff):  # "CR" marks the raw files of Canon.
            raise images.Refused(f"{path}: a raw photograph; develop it to PNG or TIFF of 16 bits")
        return tiff if _check(tiff, path, page) else None
    except BaseException:
        tiff.close()
        raise


def _is_raw(tiff):
    """Whether the file is a DNG, or its first page only a preview of pictures in sub-directories, as in raw files."""
    first = tiff.pages[0] if tiff.pages else None
    return first is not None and (_DNG_VERSION in first.tags or bool(first.is_reduced and first.subifds))


def _check(tiff, path, page):
    """Whether this module reads the pages; False if Pillow reads the first. Raises an error if neither can."""
    if not tiff.pages:
        raise tifffile.TiffFileError("it has no pages")
    if len(tiff.pages) == 1 and tiff.series[0].size > tiff.pages[0].size:
        raise dnnlib.UserError(f"{path}: a stack with a directory for its first page only; save it as BigTIFF")
    checked = tiff.pages if page is None else [tiff.pages[index] for index in {0, page}]
    return all(_is_supported(page, path) for page in checked)


def _is_supported(page, path):
    """Whether this module reads the page; False if Pillow does. Raises an error if neither can."""
    images.check_pixels(page.imagewidth, page.imagelength)
    if min(page.imagewidth, page.imagelength) < 1:
        raise tifffile.TiffFileError("it has no pixels")
    if len(page.dataoffsets) < math.prod(page.chunked):
        raise tifffile.TiffFileError("it has too few strips or tiles")
    colours, bits = _colours(page), page.bitspersample
    if page.dtype == np.uint8 and (colours is None or bits < 8):
        return False
    if page.dtype is None:
        raise images.Refused(f"{path}: {bits}-bit samples are not supported; {_CONVERT}")
    if page.dtype.kind not in "fb" and not (page.dtype.kind == "u" and bits in (8, 16)):
        raise images.Refused(f"{path}: samples of type {page.dtype} are not supported; {_CONVERT}")
    if colours is None or (page.photometric == PHOTOMETRIC.PALETTE and page.dtype != np.uint8):
        what = f"{getattr(page.photometric, 'name', page.photometric)} of {bits} bits"
        raise images.Refused(f"{path}: {what} is not supported; convert it to RGB or grey")
    extra = page.samplesperpixel - colours
    if page.axes not in ("YX", "YXS", "SYX") or not (extra == 0 or (extra == 1 and _has_alpha(page))):
        what = "only grey or RGB, with or without a channel marked as alpha, is supported"
        raise images.Refused(f"{path}: {page.samplesperpixel} channels; {what}; save the others as separate files")
    return True


def _colours(page):
    """Return the number of colour channels: 1 for grey and palettes, 3 for RGB; None for other colour spaces."""
    if page.photometric in (*_GREY, PHOTOMETRIC.PALETTE):
        return 1
    is_ycbcr = page.photometric == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.JPEG
    return 3 if page.photometric == PHOTOMETRIC.RGB or is_ycbcr else None


def _has_alpha(page):
    return tuple(page.extrasamples) in ((EXTRASAMPLE.ASSOCALPHA,), (EXTRASAMPLE.UNASSALPHA,))


def first_page(tiff):
    """Return (mode, EXIF orientation) of the first page, with the mode named as in Pillow."""
    page = tiff.pages[0]
    name = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[page.samplesperpixel]
    if page.photometric == PHOTOMETRIC.PALETTE:
        name = "P"
    elif page.dtype == bool:
        name = "1"
    elif page.dtype.kind == "f":
        name = "F"
    elif page.dtype == np.uint16:
        name = "I;16" if name == "L" else f"{name};16"
    return name, page.tags.valueof(ExifTags.Base.Orientation, default=1)


def to_page(page, samples, sample_range):
    """Convert a `tifffile.TiffPage` and its decoded `samples` to an upright Page."""
    if page.axes == "SYX":
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(*samples.shape[:2], -1).astype(samples.dtype.newbyteorder("="), copy=False)
    kind = Kind(samples.dtype == bool, sample_range, icc=page.iccprofile)
    if page.resolutionunit in (RESUNIT.INCH, RESUNIT.CENTIMETER) and page.tags.get(282):
        kind.dpi = page.get_resolution("inch")
    if page.photometric == PHOTOMETRIC.PALETTE:
        entries = np.full([page.colormap.shape[1], 4], 255, np.uint8)
        entries[:, :3] = page.colormap.T >> 8
        kind.palette = entries, samples[..., 0]
        samples = entries[samples[..., 0], :3]
    if kind.bilevel:
        samples = samples.astype(np.uint8) * 255
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        _invert(samples)
    kind.exif, kind.tiff = _exif(page), _layout(page)
    return Page(images.upright(samples, page.tags.valueof(ExifTags.Base.Orientation, default=1)), kind)


def _invert(samples):
    """Swap black and white of integer samples in place."""
    if samples.dtype.kind == "u":
        colours = samples[..., : 3 if samples.shape[2] > 2 else 1]
        np.subtract(np.iinfo(samples.dtype).max, colours, out=colours)


def _layout(page):
    """Return how a page is stored and described, mostly as arguments of `tifffile.TiffWriter.write`."""
    compression = page.compression.name if page.compression.name in _LOSSLESS else _COMPRESSION
    return {
        "byteorder": page.parent.byteorder,
        "white_is_zero": page.photometric == PHOTOMETRIC.MINISWHITE,
        "planarconfig": page.planarconfig,
        "compression": compression,
        "predictor": page.predictor if compression == page.compression.name else 1,
        "extrasamples": page.extrasamples,
        "subfiletype": page.subfiletype,
        "resolution": page.resolution if page.tags.get(282) else None,
        "resolutionunit": page.resolutionunit,
        "extratags": [tag.astuple() for tag in page.tags if tag.code in _COPIED],
    }


def _exif(page):
    """Return the EXIF data in the tags of a page, as bytes for other formats; None if it has none."""
    if not {*page.tags.keys()} & (_TEXTS | _POINTERS.keys()):
        return None
    read, kept = Image.Exif(), Image.Exif()
    read.endian, read.bigtiff = page.parent.byteorder, page.parent.is_bigtiff
    read.load_from_fp(page.parent.filehandle, page.offset)
    kept.update({code: value for code, value in read.items() if code in _TEXTS})
    for code in _POINTERS:
        if code in read:
            kept[code] = {k: v for k, v in read.get_ifd(code).items() if k != ExifTags.IFD.Interop}
    return kept.tobytes()


@contextlib.contextmanager
def page_writer(path, nbytes):
    """Yield a function write(page); the file of about `nbytes` bytes appears under its name when it is complete."""
    with atomic_path(path) as temporary:
        with contextlib.ExitStack() as stack:
            writer = None

            def write(page):
                nonlocal writer
                if writer is None:  # The file takes the byte order of the source, because tags are copied unchanged.
                    byteorder = page.kind.tiff.get("byteorder", "<")
                    writer = tifffile.TiffWriter(temporary, bigtiff=nbytes > _BIG, byteorder=byteorder)
                    stack.enter_context(writer)
                _write_page(writer, page)

            yield write
        flush_to_disk(temporary)


def _write_page(writer, page):
    kind, data = page.kind, page.samples
    layout = {"compression": _COMPRESSION, "predictor": 3 if page.is_float else 2, "resolution": kind.dpi, **kind.tiff}
    white_is_zero = layout.pop("white_is_zero", False)
    layout.pop("byteorder", None)  # Belongs to the file, not to the page.
    layout["extratags"] = [*layout.get("extratags", []), *_exif_tags(writer, page)]
    grey = "miniswhite" if white_is_zero else "minisblack"
    layout["photometric"] = "rgb" if data.shape[2] > 2 else grey
    layout["extrasamples"] = None if page.alpha is None else layout.get("extrasamples") or ["unassalpha"]
    if kind.palette and page.alpha is None:
        indices, entries = to_palette(page)
        data, layout["photometric"] = indices[..., None], "palette"
        layout["colormap"] = np.zeros([3, 256], np.uint16)
        layout["colormap"][:, : len(entries)] = entries.T[:3] * np.uint16(257)
    elif kind.bilevel and page.alpha is None:
        data, layout["predictor"] = (data < 128) == white_is_zero, 1
    elif white_is_zero:
        data = data.copy()
        _invert(data)
    if data.shape[2] == 1:
        data = data[..., 0]
    elif layout.get("planarconfig") == PLANARCONFIG.SEPARATE:
        data = np.moveaxis(data, -1, 0)
    writer.write(data, **layout, iccprofile=kind.icc, metadata=None, software=False, contiguous=False)


def _exif_tags(writer, page):
    """Return the EXIF data as tags; the directories that it points to are appended to the file immediately."""
    exif = Image.Exif()
    exif.load(page.kind.exif or b"")
    copied = {tag[0] for tag in page.kind.tiff.get("extratags", [])}
    texts = {code: exif.get(code) for code in {*_TEXTS, 270} - copied}
    tags: list[tuple] = [(code, 2, 0, text.encode(), True) for code, text in texts.items() if isinstance(text, str)]
    if writer.tiff.offsetsize > 4:
        return tags  # Pillow writes directories with 32-bit offsets only.
    prefix = b"II" if writer.tiff.byteorder == "<" else b"MM"
    for code, name in _POINTERS.items():
        if code in exif:
            directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=prefix, group=code)
            for tag, value in exif.get_ifd(code).items():
                if tag != ExifTags.IFD.Interop:
                    directory[tag] = value
            offset = writer.filehandle.seek(0, os.SEEK_END)
            offset += writer.filehandle.write(bytes(offset % 2))  # Directories must start at even offsets.
            writer.filehandle.write(directory.tobytes(offset))
            tags.append((name, 4, 1, offset, True))
    return tags
