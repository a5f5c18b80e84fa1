"""Image files and arrays: finding and opening files, writing, conversion to and from bytes.

Images inside the project are float32 in [-0.5, 0.5], channel-first: `x = uint8 / 255 - 0.5`.
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

# Larger than the 151 megapixels of the largest cameras; half a gigabyte as RGB. A small file can claim any number.
MAX_PIXELS = 180_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns from here on, and refuses from twice that.
# What photographs come in, and nothing that Pillow hands on to other programs, as it does PostScript.
_FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "TGA")
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
SUFFIXES += (".ppm", ".pgm", ".pbm", ".jp2", ".j2k", ".avif", ".tga")
_BROKEN = (ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError)
_BROKEN += (MemoryError, struct.error, zlib.error)


class Refused(dnnlib.UserError):
    """An image that is whole, but holds what the program cannot keep."""


def to_float(pixels):
    """uint8 or uint16 array -> float32 in [-0.5, 0.5]."""
    return np.asarray(pixels, np.float32) / np.iinfo(pixels.dtype).max - np.float32(0.5)


def to_uint(x, dtype):
    """Float array in [-0.5, 0.5], clipped if beyond -> uint8 or uint16, as `dtype` says, rounded to nearest."""
    peak = np.iinfo(dtype).max
    return np.clip((x + 0.5) * peak + 0.5, 0, peak).astype(dtype)


def to_uint8(x):
    """Float array in [-0.5, 0.5], clipped if beyond -> uint8, rounded to nearest."""
    return to_uint(x, np.uint8)


def list_images(folder, tell=True):
    """Sorted paths of the image files in `folder`, by suffix in any case. UserError if there is no such folder.

    tell: whether files and folders that are passed over are counted in a line on stderr. Hidden ones never are.
    """
    if not os.path.isdir(folder):
        raise dnnlib.UserError(f"{folder}: no such folder of images")
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    taken = [name for name in names if name.lower().endswith(SUFFIXES)]
    if tell:
        _tell_passed_over(folder, [name for name in names if name not in taken])
    return [os.path.join(folder, name) for name in taken]


def list_tree(folder, leave_out=()):
    """Sorted paths of the image files in `folder` and in all folders below it, but not in those of `leave_out`.

    Folders that are symbolic links are followed, each once. Files that are passed over are counted in a line on stderr.
    """
    done = {os.path.realpath(path) for path in leave_out}
    paths, others = [], []
    for parent, folders, names in os.walk(folder, followlinks=True):
        if parent != folder and os.path.realpath(parent) in done:
            folders.clear()
            continue
        done.add(os.path.realpath(parent))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                (paths if name.lower().endswith(SUFFIXES) else others).append(os.path.join(parent, name))
    _tell_passed_over(folder, sorted(os.path.relpath(path, folder) for path in others))
    return sorted(paths)


def _tell_passed_over(folder, names):
    if names:
        what = f"{len(names)} other files or folders, e.g. {names[0]}"
        print(f"{folder}: passed over {what}; images end in {', '.join(SUFFIXES)}", file=sys.stderr)


def open_image(path):
    """Opens an image, of whatever kind its bytes say, and reads its header only.

    UserError naming the file if it cannot be an image, or has more than MAX_PIXELS.
    """
    with readable(path, "cannot be read"):
        Image.init()
        return Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN])


@contextlib.contextmanager
def readable(path, what="cannot be decoded", also=()):
    """Turns what decoders raise in the block into a UserError that says of `path` `what` and why.

    also: exceptions of a decoder's own.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Broken EXIF and the like: the pixels are all we need.
            yield
    except dnnlib.UserError:
        raise
    except UnidentifiedImageError:
        raise dnnlib.UserError(f"{path}: not an image, or of a kind that is not known here") from None
    except Image.DecompressionBombError:
        limit = MAX_PIXELS // 10**6
        raise dnnlib.UserError(f"{path}: damaged, or too large: the limit is {limit} megapixels") from None
    except (OSError, *_BROKEN, *also) as error:
        reason = getattr(error, "strerror", None) or f"{what} ({words_of(error)})"
        raise dnnlib.UserError(f"{path}: {reason}") from None


def check_pixels(width, height):
    """Pillow's error, for readers of other libraries, if an image has more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError


def orientation(image, path):
    """The EXIF orientation, 1 to 8, of the opened `image`. UserError naming `path` if it is broken."""
    with readable(path, "cannot be read"):
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # PNG's own version decodes the image.


def decode(image, path):
    """Decodes the opened `image`, turned upright by its EXIF orientation. UserError naming `path` if it is broken."""
    with readable(path):
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # Without a copy where it is upright.
        return image


def upright(samples, orientation):
    """[H, W, C] as stored with an EXIF `orientation` of 1 to 8 -> as it is to be seen."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def save(path, image, **options):
    """Saves a Pillow image; it appears under its name only when complete. UserError if the format cannot hold it.

    options: of the format, see Pillow's documentation of file formats.
    """
    check_writable(path)
    try:
        with dnnlib.open_atomic(path, "wb") as f:
            image.save(f, format=format_of(path), **options)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise dnnlib.UserError(f"{path}: {error}; use .png") from None  # E.g. alpha in a JPEG.


def format_of(path):
    """The image format that the suffix of `path` stands for, as Pillow calls it, such as "JPEG"; None if unknown."""
    Image.init()
    return Image.registered_extensions().get(os.path.splitext(path)[1].lower())


def save_uint8(path, pixels):
    """Saves uint8 [3, H, W] or [H, W] as an image."""
    save(path, Image.fromarray(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels))


def check_writable(path):
    """UserError if no image could be written to `path`: to be known before the work."""
    if format_of(path) not in Image.SAVE:
        suffix = os.path.splitext(path)[1]
        raise dnnlib.UserError(f"{path}: no image format is known by the suffix '{suffix}'; use .png")
    dnnlib.util.check_output(path)
