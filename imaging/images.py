"""Image files and arrays: find, open and write files, and convert between bytes and floats.

Images inside the project are float32 in [-0.5, 0.5], channels first: `x = uint8 / 255 - 0.5`.
"""

import contextlib
import os
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

import dnnlib
from dnnlib.util import words_of

# More than the 151 megapixels of the largest cameras; half a gigabyte as RGB. A small file can claim any size.
MAX_PIXELS = 180_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above this, and refuses twice as many.
# Formats of photographs. Formats that Pillow passes to other programs, such as PostScript, are left out.
_FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "TGA")
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
SUFFIXES += (".ppm", ".pgm", ".pbm", ".jp2", ".j2k", ".avif", ".tga")
_BROKEN = (ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError)
_BROKEN += (MemoryError, struct.error, zlib.error)


class Refused(dnnlib.UserError):
    """An intact image whose contents the program cannot keep."""


def to_float(pixels):
    """Convert a uint8 or uint16 array to float32 in [-0.5, 0.5]."""
    return np.asarray(pixels, np.float32) / np.iinfo(pixels.dtype).max - np.float32(0.5)


def to_uint(x, dtype):
    """Convert a float array in [-0.5, 0.5] to uint8 or uint16: clipped, and rounded to nearest."""
    peak = np.iinfo(dtype).max
    return np.clip((x + 0.5) * peak + 0.5, 0, peak).astype(dtype)


def to_uint8(x):
    """Convert a float array in [-0.5, 0.5] to uint8: clipped, and rounded to nearest."""
    return to_uint(x, np.uint8)


def to_grey(pixels):
    """Convert RGB [3, H, W] to greyscale [1, H, W] by ITU-R 601, uint8 as Pillow does; equal channels stay the same."""
    weights = np.array([19595, 38470, 7471], np.uint32)[:, None, None]  # 0.299, 0.587, 0.114 of 65536.
    if pixels.dtype.kind == "f":
        return (pixels * (weights / 65536)).sum(axis=0, keepdims=True).astype(pixels.dtype)
    return (((pixels * weights).sum(axis=0, keepdims=True, dtype=np.uint32) + 32768) >> 16).astype(pixels.dtype)


def is_grey(pixels):
    """Whether the channels of an array [C, ...] are equal."""
    return all(np.array_equal(channel, pixels[0]) for channel in pixels[1:])


def list_images(folder, tell=True, suffixes=SUFFIXES):
    """Return the sorted paths of the image files in `folder`, recognised by suffix in upper or lower case.

    Args:
        folder: Folder to list. Hidden files are ignored.
        tell: Whether to print a line on stderr that counts the other files and folders.
        suffixes: Suffixes of the files.

    Raises:
        UserError: There is no such folder.
    """
    if not os.path.isdir(folder):
        raise dnnlib.UserError(f"{folder}: no such folder of images")
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    taken = [name for name in names if name.lower().endswith(suffixes)]
    if tell:
        _tell_passed_over(folder, [name for name in names if name not in taken], suffixes)
    return [os.path.join(folder, name) for name in taken]


def list_tree(folder, leave_out=()):
    """Return the sorted paths of the image files in `folder` and all folders below it, except those in `leave_out`.

    See `dnnlib.util.files_below`. A line on stderr counts the other files.
    """
    paths, others = [], []
    for path in dnnlib.util.files_below(folder, leave_out):
        (paths if path.lower().endswith(SUFFIXES) else others).append(path)
    _tell_passed_over(folder, sorted(os.path.relpath(path, folder) for path in others))
    return sorted(paths)


def _tell_passed_over(folder, names, suffixes=SUFFIXES):
    if names:
        what = f"{len(names)} other files or folders, e.g. {names[0]}"
        print(f"{folder}: passed over {what}; images end in {', '.join(suffixes)}", file=sys.stderr)


def open_image(path):
    """Open an image and read its header; the content, not the suffix, determines the format.

    Raises UserError if the file is not an image or has more than MAX_PIXELS.
    """
    with readable(path, "cannot be read"):
        Image.init()
        return Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN])


@contextlib.contextmanager
def readable(path, what="cannot be decoded", also=()):
    """Turn what decoders raise in the block into a UserError: "`path`: `what` (reason)".

    also: Further exceptions that the decoder raises.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Such as broken EXIF data: only the pixels matter.
            yield
    except dnnlib.UserError:
        raise
    except UnidentifiedImageError:
        raise dnnlib.UserError(f"{path}: not an image, or of an unsupported format") from None
    except Image.DecompressionBombError:
        limit = MAX_PIXELS // 10**6
        raise dnnlib.UserError(f"{path}: damaged, or too large: the limit is {limit} megapixels") from None
    except (OSError, *_BROKEN, *also) as error:
        reason = getattr(error, "strerror", None) or f"{what} ({words_of(error)})"
        raise dnnlib.UserError(f"{path}: {reason}") from None


def check_pixels(width, height):
    """Raise Pillow's error if an image has more than MAX_PIXELS; for decoders other than Pillow."""
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError


def orientation(image, path):
    """Return the EXIF orientation, 1 to 8, of the opened `image`. Raises UserError if the file is broken."""
    with readable(path, "cannot be read"):
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # The getexif of PNG images decodes them.


def decode(image, path):
    """Decode the opened `image` and turn it upright by its EXIF orientation. Raises UserError if the file is broken."""
    with readable(path):
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # An upright image is not copied.
        return image


def upright(samples, orientation):
    """Turn stored samples [H, W, C] with an EXIF `orientation` of 1 to 8 upright."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def save(path, image, **options):
    """Save a Pillow image; the file appears under its name only when it is complete.

    options: Options of the format, as Pillow's documentation lists them. Raises UserError if the format cannot hold
    the image.
    """
    check_writable(path)
    try:
        with dnnlib.open_atomic(path, "wb") as f:
            image.save(f, format=format_of(path), **options)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise dnnlib.UserError(f"{path}: {error}; use .png") from None  # Such as alpha in a JPEG.


def format_of(path):
    """Return Pillow's name of the format for the suffix of `path`, such as "JPEG"; None if the suffix is unknown."""
    Image.init()
    return Image.registered_extensions().get(os.path.splitext(path)[1].lower())


def save_uint8(path, pixels):
    """Save uint8 [3, H, W], [1, H, W] or [H, W] as an image."""
    save(path, to_pillow(pixels))


def to_pillow(pixels):
    """Return uint8 [3, H, W], [1, H, W] or [H, W] as a Pillow image."""
    pixels = pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def check_writable(path):
    """Raise UserError if no image can be written to `path`. Call it before the work."""
    if format_of(path) not in Image.SAVE:
        suffix = os.path.splitext(path)[1]
        raise dnnlib.UserError(f"{path}: no image format is known by the suffix '{suffix}'; use .png")
    dnnlib.util.check_output(path)
