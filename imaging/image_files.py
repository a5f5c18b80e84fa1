"""Reading images of every kind with all that belongs to them, and writing the same kind back.

8 bits a channel are Pillow's; it has no mode for 16 bits in colour, so those in PNG and PPM are read and written here,
and TIFF, with its stacks and floating-point samples, in tiff_files.py.
"""

import contextlib
import dataclasses
import math
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
from PIL import ExifTags, Image

import dnnlib
from imaging import images, tiff_files
from imaging.pages import Kind, Page, parts, to_palette

# What formats can hold beyond 8-bit grey and RGB. A page that a format cannot hold is refused, so that nothing is lost
# in silence; a palette and two levels are but ways of storing, and become RGB and grey where there are no such.
_ALPHA = ("PNG", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA")
_SIXTEEN_BIT = ("PNG", "TIFF", "PPM")
_PALETTE = ("PNG", "GIF", "BMP")
_BILEVEL = ("PNG", "BMP", "PPM")
_METADATA = ("PNG", "TIFF", "JPEG", "WEBP", "AVIF")
_MAX_SIDE = {"WEBP": 16383, "JPEG": 65500}

# What says of PNG and AVIF files which colours their samples are: code points of primaries and transfer, ...
_SRGB_CODES = ((1, 13), (1, 1), (1, 2), (2, 2), (1, 6), (2, 13))  # Of sRGB, of video that is shown alike, unspecified.
_SRGB_GAMMA = 0.45455
_SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # Of white, red, green, blue.

# Lossless, or the highest quality that is of use.
_SAVE_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},  # Exact: colours beneath transparent pixels too.
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


@dataclasses.dataclass
class Source:
    """An open image file. pages: how many; size (height, width) and nbytes: of the largest; read(index) -> Page.

    mode: how the first page is stored, as Pillow calls it: "RGB", "L", "I;16", "F"; orientation: its EXIF orientation.
    """

    pages: int
    size: tuple
    nbytes: int
    read: Callable
    mode: str
    orientation: int


@contextlib.contextmanager
def open_source(path, sample_range=None):
    """A Source, from headers only: nothing is decoded before `read`. UserError if it is broken or of no known kind.

    sample_range: the samples that are black and white; None: see `Page.range`.
    """
    with images.readable(path, also=tiff_files.ERRORS):
        tiff = tiff_files.open_tiff(path)
    if tiff is None:
        yield _open_single(path, sample_range)
        return
    with tiff:

        def read(index):
            with images.readable(path, also=tiff_files.ERRORS):
                page = tiff.pages[index]
                return tiff_files.to_page(page, page.asarray(), sample_range)

        largest = max(tiff.pages, key=lambda page: page.nbytes)
        size, (mode, orientation) = (largest.imagelength, largest.imagewidth), tiff_files.first_page(tiff)
        yield Source(len(tiff.pages), size, largest.nbytes, read, mode, orientation)


def read_float(path, sample_range=None):
    """Image file -> (float32 [3, H, W] in [-0.5, 0.5], page), where `write_float` writes the kind that `page` is of.

    Of a stack the first page. `page.kind.losses` tells what cannot be kept.
    """
    with open_source(path, sample_range) as source:
        page = source.read(0)
    return np.array(page.crop(slice(None), slice(None))), page


def write_float(path, x, page=None):
    """Writes float [3, H, W] in [-0.5, 0.5] as an image of the kind of `page`, by default 8-bit RGB.

    The suffix of `path` decides the format. UserError if there is no such format or it cannot hold that kind.
    """
    page = page or Page(np.empty([*x.shape[1:], 3], np.uint8), Kind())
    check_holds(path, page)
    result = page.blank()
    result.put(slice(None), slice(None), x, source=page)
    with page_writer(path) as write:
        write(result)


def check_holds(path, page, pages=1):
    """UserError if the format of `path` cannot hold `page`, or not that many `pages`: to be known before the work."""
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
    """What gets lost of `page` in a file `path`, in words; none of it pixels."""
    kind, fmt = page.kind, images.format_of(path)
    metadata = [name for name, value in (("EXIF data", kind.exif), ("colour profile", kind.icc)) if value]
    losses = kind.losses + [f"{fmt} does not keep its {name}" for name in metadata if fmt not in _METADATA]
    if fmt != "TIFF" and not kind.icc and tiff_files.COLOUR_TAGS & {tag[0] for tag in kind.tiff.get("extratags", ())}:
        losses.append(f"{fmt} does not keep its transfer function or chromaticities")
    return losses


@contextlib.contextmanager
def page_writer(path, nbytes=0):
    """Yields write(page), to be called for every page in turn; the file appears under its name when all are written.

    nbytes: about how many bytes the file will have, if many.
    """
    if images.format_of(path) == "TIFF":
        with tiff_files.page_writer(path, nbytes) as write:
            yield write
    else:
        yield lambda page: _write_single(path, page)


def _open_single(path, sample_range):
    with images.open_image(path) as image:
        channels = 4 if image.mode == "P" else len(image.getbands())
        nbytes = image.width * image.height * channels * (1 + _is_deep(image))
        size, orientation = (image.height, image.width), images.orientation(image, path)
        return Source(1, size, nbytes, lambda index: _read_single(path, sample_range), image.mode, orientation)


def _is_deep(image):
    """Whether the opened, not yet decoded `image` has more than 8 bits a channel."""
    return ";16" in str(image.tile) or _pnm_peak(image) > 255


def _pnm_peak(image):
    """The sample that is white in a PGM or PPM file; 0 in others."""
    if image.format != "PPM":
        return 0
    args = image.tile[0].args
    return args[1] if isinstance(args, tuple) else 65535 if ";16" in args else 255


def _read_single(path, sample_range):
    with images.open_image(path) as image:
        with images.readable(path):  # Pillow walks through a file to count its frames.
            deep, frames = _is_deep(image), getattr(image, "n_frames", 1)
        if deep and (image.format == "PNG" or (image.format == "PPM" and image.tile[0].codec_name != "ppm_plain")):
            page = _read_sixteen_bit(path, image, sample_range)
        else:
            page = _from_pillow(images.decode(image, path), sample_range)
        bits = 16 if deep else _bits(path, image.format)
        page.kind.losses += _colour_losses(path, image)
    if frames > 1:
        page.kind.losses.append(f"only the first of its {frames} images is used")
    if bits > 8 and page.samples.dtype == np.uint8:
        page.kind.losses.append(f"its {bits} bits a channel become 8")
    return page


def _bits(path, fmt):
    """Bits a channel of JPEG 2000 and AVIF, which Pillow gives as 8; 8 of other formats."""
    head = _head(path) if fmt in ("JPEG2000", "AVIF") else b""
    if fmt == "JPEG2000":
        size = head.find(b"\xff\x4f\xff\x51")  # Where the codestream starts; its first segment tells the size.
        return (head[size + 42] & 127) + 1 if 0 <= size < len(head) - 42 else 8
    codec = head.find(b"av1C")
    flags = head[codec + 6] if 0 <= codec < len(head) - 6 else 0
    return 12 if flags & 0x20 else 10 if flags & 0x40 else 8


def _colour_losses(path, image):
    """What of a PNG or AVIF says which colours its samples are and is not kept, in words, unless they are sRGB's."""
    info, losses = image.info, []
    if image.format not in ("PNG", "AVIF") or "icc_profile" in info:
        return losses
    head = _head(path)
    code = head.find(b"cICP") if image.format == "PNG" else head.find(b"nclx")
    if code >= 0:
        points = head[code + 4 : code + 6] if image.format == "PNG" else head[code + 5 : code + 8 : 2]
        losses += ["its colour space (CICP) is not kept"] * (tuple(points) not in _SRGB_CODES)
    elif "srgb" not in info:
        losses += ["its gamma is not kept"] * (abs(info.get("gamma", _SRGB_GAMMA) - _SRGB_GAMMA) > 0.02)
        losses += ["its chromaticities are not kept"] * (
            not np.allclose(info.get("chromaticity", _SRGB_CHROMATICITIES), _SRGB_CHROMATICITIES, atol=0.01)
        )
    return losses


def _head(path):
    with open(path, "rb") as f:
        return f.read(2**16)


def _from_pillow(image, sample_range):
    kind = Kind(image.mode == "1", sample_range, **_metadata(image))
    if image.mode == "P":
        indices = np.asarray(image)
        every = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        every.putpalette(image.palette)
        every.info = image.info
        count = max(len(image.getpalette()) // 3, int(indices.max()) + 1)
        entries = np.asarray(every.convert("RGBA"))[0, :count]
        kind.palette = entries, indices
        return Page((entries if entries[:, 3].min() < 255 else entries[:, :3])[indices], kind)
    if image.mode.startswith("I"):
        return Page(np.asarray(image).clip(0, 65535).astype(np.uint16)[..., None], kind)
    if image.mode not in ("1", "F", "L", "LA", "RGB", "RGBA"):
        mode = "RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB"
        kind.losses.append(f"its mode {image.mode} becomes {mode}" + ", without its colour profile" * bool(kind.icc))
        kind.icc = None  # It describes other channels.
        image = image.convert(mode)
    if "transparency" in image.info:  # One colour stands for transparent.
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    return Page(_samples(image.convert("L") if image.mode == "1" else image), kind)


def _samples(image):
    """Decoded Pillow image -> [H, W, C]. In parts, because NumPy's own way makes three copies at once."""
    samples = np.empty(
        [image.height, image.width, len(image.getbands())], np.float32 if image.mode == "F" else np.uint8
    )
    for rows in parts(image.height, 256):
        part = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
        samples[rows] = part.reshape(samples[rows].shape)
    return samples


def _metadata(image):
    """The fields of Kind that come with a Pillow image."""
    exif = image.info.get("exif")
    if exif and not exif.startswith(b"Exif\0\0"):
        exif = b"Exif\0\0" + exif
    return {"exif": exif, "icc": image.info.get("icc_profile"), "dpi": image.info.get("dpi")}


def _read_sixteen_bit(path, image, sample_range):
    """PNG, PGM and PPM of 16 bits; smaller ranges of the latter two are stretched to it."""
    kind = Kind(sample_range=sample_range, **_metadata(image))
    with images.readable(path), open(path, "rb") as f:
        if image.format == "PNG":
            samples = imagecodecs.png_decode(f.read()).reshape(image.height, image.width, -1)
        else:
            shape = (image.height, image.width, len(image.getbands()))
            f.seek(image.tile[0].offset)
            samples = np.fromfile(f, ">u2", math.prod(shape))
            if samples.size < math.prod(shape):
                raise OSError("the file is truncated")
            samples = samples.reshape(shape)
            peak = _pnm_peak(image)
            scaled = samples if peak == 65535 else samples.clip(0, peak) * (65535 / peak) + 0.5
            samples = scaled.astype(np.uint16)
    exif = Image.Exif()
    exif.load(kind.exif or b"")
    orientation = exif.pop(ExifTags.Base.Orientation, 1)
    if orientation != 1:
        kind.exif = exif.tobytes() if exif else None
    return Page(images.upright(samples, orientation), kind)


def _write_single(path, page):
    fmt = images.format_of(path)
    if page.samples.dtype == np.uint16:
        with dnnlib.open_atomic(path, "wb") as f:
            f.writelines(_encode_png(page) if fmt == "PNG" else _encode_ppm(page.samples))
        return
    options = dict(_SAVE_OPTIONS.get(fmt, {}))
    options |= {"icc_profile": page.kind.icc, "dpi": page.kind.dpi, "exif": page.kind.exif}
    image, transparency = _to_pillow(page, fmt)
    options["transparency"] = transparency
    images.save(path, image, **{name: value for name, value in options.items() if value is not None})


def _to_pillow(page, fmt):
    """-> (Pillow image, which palette entries are transparent, or None)."""
    samples = page.samples[..., 0] if page.samples.shape[2] == 1 else page.samples
    if page.kind.palette and fmt in _PALETTE:
        found = to_palette(page)
        if found:
            indices, entries = found
            image, alpha = Image.fromarray(indices), entries[:, 3]
            image.putpalette(entries[:, :3].tobytes())
            if alpha.min() == 255:
                return image, None
            return image, int(alpha.argmin()) if fmt == "GIF" else alpha.tobytes()
    if page.kind.bilevel and page.alpha is None and fmt in _BILEVEL:
        return Image.fromarray(samples >= 128), None
    return Image.fromarray(samples), None


def _encode_png(page):
    """16-bit PNG, as the pieces of its file."""
    data = memoryview(imagecodecs.png_encode(np.ascontiguousarray(page.samples)))
    yield data[:33]  # Signature and header; then comes what belongs before the pixels.
    if page.kind.icc:
        yield _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(page.kind.icc))
    if page.kind.dpi:
        yield _png_chunk(b"pHYs", struct.pack(">IIB", *(round(v / 0.0254) for v in page.kind.dpi), 1))
    if page.kind.exif:
        yield _png_chunk(b"eXIf", page.kind.exif[6:])
    yield data[33:]


def _png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _encode_ppm(samples):
    height, width, channels = samples.shape
    yield b"P%d %d %d 65535\n" % (5 if channels == 1 else 6, width, height)
    yield samples.astype(">u2").data
