"""TIFF files page by page: stacks, 16 bits a channel, floating-point samples; tifffile reads and writes them.

Of a page's tags those are written again that describe the picture or its place in a stack, such as what ImageJ and
OME-TIFF keep there, and those that say how it is stored.
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
from dnnlib.util import atomic_path
from imaging import images
from imaging.pages import Kind, Page, to_palette

# Damaged files make tifffile raise what they may: it checks little, and leaves values it does not know as they are.
ERRORS = (Exception,)
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK)
_DNG_VERSION = 50706
_LOSSLESS = ("NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "ZSTD")
_COMPRESSION = "ADOBE_DEFLATE"  # Where the source's would lose something, or there is none.
_BIG = 2**32 - 2**25  # Bytes from which a file needs 64-bit offsets.

# Tags that are copied as they are: those of EXIF data; names of document and page, XMP, IPTC, Photoshop's, ImageJ's,
# MicroManager's, GeoTIFF's and GDAL's.
COLOUR_TAGS = {301, 318, 319}  # Transfer function, white point, chromaticities.
_TEXTS = {271, 272, 305, 306, 315, 33432}  # Maker, model, software, time, artist, copyright.
_COPIED = _TEXTS | COLOUR_TAGS | {269, 270, 285, 297, 316, 700, 33723, 34377, 50838, 50839, 51123}
_COPIED |= {33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113}
_POINTERS = {ExifTags.IFD.Exif: "ExifTag", ExifTags.IFD.GPSInfo: "GPSTag"}  # To directories of their own.


class _Strict(logging.Filter):
    """tifffile only logs that a stack ends early; it is an error here. Its other remarks are not for users."""

    def filter(self, record):
        if "invalid page offset" in record.getMessage():
            raise tifffile.TiffFileError("it ends early")
        return False


logging.getLogger("tifffile").addFilter(_Strict())


def open_tiff(path):
    """An open `tifffile.TiffFile`, or None if `path` is no TIFF file or one that is left to Pillow (CMYK, say).

    UserError for samples of a type that is not known here; Pillow's error for images beyond its limit of pixels.
    """
    with open(path, "rb") as f:
        head = f.read(10)
    if head[:4] not in _MAGIC:
        return None
    tiff = tifffile.TiffFile(path)
    try:
        if head[8:] == b"CR" or _is_raw(tiff):  # Of Canon, or of others.
            raise images.Refused(f"{path}: a raw photograph; develop it to PNG or TIFF of 16 bits")
        return tiff if _check(tiff, path) else None
    except BaseException:
        tiff.close()
        raise


def _is_raw(tiff):
    """Whether the file is a DNG, or its first page a preview of pictures in its sub-directories, as in raw files."""
    first = tiff.pages[0] if tiff.pages else None
    return first is not None and (_DNG_VERSION in first.tags or bool(first.is_reduced and first.subifds))


def _check(tiff, path):
    """Whether all pages can be read here; False where Pillow can read the first."""
    if not tiff.pages:
        raise tifffile.TiffFileError("it has no pages")
    if len(tiff.pages) == 1 and tiff.series[0].size > tiff.pages[0].size:
        raise dnnlib.UserError(f"{path}: a stack with a directory for its first page only; save it as BigTIFF")
    for page in tiff.pages:
        images.check_pixels(page.imagewidth, page.imagelength)
        if min(page.imagewidth, page.imagelength) < 1:
            raise tifffile.TiffFileError("it has no pixels")
        if len(page.dataoffsets) < math.prod(page.chunked):
            raise tifffile.TiffFileError("it has fewer parts than its size takes")
        colours = _colours(page)
        if page.dtype == np.uint8 and (colours is None or page.bitspersample < 8):
            return False
        whole = page.dtype is not None and page.dtype.kind == "u" and page.bitspersample in (8, 16)
        if not whole and (page.dtype is None or page.dtype.kind not in "fb"):
            what = f"{page.bitspersample}-bit samples" if page.dtype is None else f"samples of type {page.dtype}"
            raise images.Refused(f"{path}: {what} are not known; convert them to 8 or 16 bits or to float32")
        if colours is None or (page.photometric == PHOTOMETRIC.PALETTE and page.dtype != np.uint8):
            name = getattr(page.photometric, "name", page.photometric)
            raise images.Refused(f"{path}: {name} of {page.bitspersample} bits is not known; convert it to RGB or grey")
        extra = page.samplesperpixel - colours
        if page.axes not in ("YX", "YXS", "SYX") or not (extra == 0 or (extra == 1 and _has_alpha(page))):
            raise images.Refused(
                f"{path}: {page.samplesperpixel} channels; grey or RGB, with or without a channel marked as alpha, is "
                "known; save the others as files of their own"
            )
    return True


def _colours(page):
    """1 of grey and palettes, 3 of what is decoded to RGB, None of other colour spaces."""
    if page.photometric in (*_GREY, PHOTOMETRIC.PALETTE):
        return 1
    is_ycbcr = page.photometric == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.JPEG
    return 3 if page.photometric == PHOTOMETRIC.RGB or is_ycbcr else None


def _has_alpha(page):
    return tuple(page.extrasamples) in ((EXTRASAMPLE.ASSOCALPHA,), (EXTRASAMPLE.UNASSALPHA,))


def first_page(tiff):
    """(Mode, EXIF orientation) of the first page. The mode is named as Pillow names its own."""
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
    """A `tifffile.TiffPage` and its decoded `samples` -> Page, turned upright."""
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
    """Exchanges black and white in place, where samples are whole numbers."""
    if samples.dtype.kind == "u":
        colours = samples[..., : 3 if samples.shape[2] > 2 else 1]
        np.subtract(np.iinfo(samples.dtype).max, colours, out=colours)


def _layout(page):
    """How the samples are stored and what describes them, mostly as arguments of `tifffile.TiffWriter.write`."""
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
    """EXIF data as other formats keep it, from the tags of a page; None if it has none."""
    if not {*page.tags.keys()} & (_TEXTS | _POINTERS.keys()):
        return None
    read, kept = Image.Exif(), Image.Exif()
    read.endian, read.bigtiff = page.parent.byteorder, page.parent.is_bigtiff
    read.load_from_fp(page.parent.filehandle, page.offset)
    for code, value in read.items():
        if code in _TEXTS:
            kept[code] = value
    for code in _POINTERS:
        if code in read:
            kept[code] = {k: v for k, v in read.get_ifd(code).items() if k != ExifTags.IFD.Interop}
    return kept.tobytes()


@contextlib.contextmanager
def page_writer(path, nbytes):
    """Yields write(page). The file, of about `nbytes`, appears under its name when complete."""
    with atomic_path(path) as temporary:
        with contextlib.ExitStack() as stack:
            writer = None

            def write(page):
                nonlocal writer
                if writer is None:  # Tags are copied as they are, so that the file has the byte order of the source.
                    byteorder = page.kind.tiff.get("byteorder", "<")
                    writer = tifffile.TiffWriter(temporary, bigtiff=nbytes > _BIG, byteorder=byteorder)
                    stack.enter_context(writer)
                _write_page(writer, page)

            yield write
        with open(temporary, "r+b") as f:
            os.fsync(f.fileno())


def _write_page(writer, page):
    kind, data = page.kind, page.samples
    layout = {"compression": _COMPRESSION, "predictor": 3 if page.is_float else 2, "resolution": kind.dpi, **kind.tiff}
    white_is_zero = layout.pop("white_is_zero", False)
    layout.pop("byteorder", None)  # The file's, not the page's.
    layout["extratags"] = [*layout.get("extratags", []), *_exif_tags(writer, page)]
    layout["photometric"] = "rgb" if data.shape[2] > 2 else "miniswhite" if white_is_zero else "minisblack"
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
    """The EXIF data as tags; directories that it points to are written at once, where the file ends so far."""
    exif = Image.Exif()
    exif.load(page.kind.exif or b"")
    copied = {tag[0] for tag in page.kind.tiff.get("extratags", [])}
    texts = {code: exif.get(code) for code in {*_TEXTS, 270} - copied}
    tags = [(code, 2, 0, text.encode(), True) for code, text in texts.items() if isinstance(text, str)]
    if writer.tiff.offsetsize > 4:
        return tags  # Pillow, which makes the directories, knows 32-bit offsets only.
    for code, name in _POINTERS.items():
        if code in exif:
            directory = TiffImagePlugin.ImageFileDirectory_v2(
                prefix=b"II" if writer.tiff.byteorder == "<" else b"MM", group=code
            )
            for tag, value in exif.get_ifd(code).items():
                if tag != ExifTags.IFD.Interop:
                    directory[tag] = value
            offset = writer.filehandle.seek(0, os.SEEK_END)
            offset += writer.filehandle.write(bytes(offset % 2))  # Directories begin at even offsets.
            writer.filehandle.write(directory.tobytes(offset))
            tags.append((name, 4, 1, offset, True))
    return tags
