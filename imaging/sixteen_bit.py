"""PNG, PGM and PPM files of 16 bits per channel; Pillow has no mode for 16 bits in colour."""

import math
import struct
import zlib

import imagecodecs
import numpy as np


def is_deep(image):
    """Whether an opened Pillow image, not yet decoded, has more than 8 bits per channel."""
    return ";16" in str(image.tile) or pnm_peak(image) > 255


def pnm_peak(image):
    """Return the sample value that is white in an opened PGM or PPM file; 0 for other formats."""
    if image.format != "PPM":
        return 0
    args = image.tile[0].args
    if isinstance(args, tuple):
        return args[1]
    return 65535 if ";16" in args else 255


def decode(f, image):
    """Return the samples of a 16-bit PNG or binary PGM or PPM file, uint16 [H, W, C]; white becomes 65535.

    Args:
        f: The open file.
        image: The same file opened by Pillow, not yet decoded.

    Raises:
        OSError: The PGM or PPM file is truncated. Damaged PNG files raise the errors of imagecodecs.
    """
    if image.format == "PNG":
        return imagecodecs.png_decode(f.read()).reshape(image.height, image.width, -1)
    shape = (image.height, image.width, len(image.getbands()))
    f.seek(image.tile[0].offset)
    samples = np.fromfile(f, ">u2", math.prod(shape))
    if samples.size < math.prod(shape):
        raise OSError("the file is truncated")
    samples, peak = samples.reshape(shape), pnm_peak(image)
    if peak < 65535:
        samples = samples.clip(0, peak) * (65535 / peak) + 0.5
    return samples.astype(np.uint16)


def encode_png(page):
    """Yield the pieces of a 16-bit PNG file of `page`, with its colour profile, resolution and EXIF data."""
    data = memoryview(imagecodecs.png_encode(np.ascontiguousarray(page.samples)))
    yield data[:33]  # Signature and header. The metadata chunks must precede the pixels.
    if page.kind.icc:
        yield _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(page.kind.icc))
    if page.kind.dpi:
        yield _png_chunk(b"pHYs", struct.pack(">IIB", *(round(v / 0.0254) for v in page.kind.dpi), 1))
    if page.kind.exif:
        yield _png_chunk(b"eXIf", page.kind.exif[6:])
    yield data[33:]


def _png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def encode_pnm(page):
    """Yield the pieces of a 16-bit PGM (grey) or PPM (RGB) file of `page`."""
    height, width, channels = page.samples.shape
    yield b"P%d %d %d 65535\n" % (5 if channels == 1 else 6, width, height)
    yield page.samples.astype(">u2").data
