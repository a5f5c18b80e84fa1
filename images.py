"""Image files and arrays: reading every kind Pillow can, writing the same kind back, conversion to and from bytes.

Images inside the project are float32 in [-0.5, 0.5], channel-first: `x = uint8 / 255 - 0.5`.
"""

import io
import os
import struct
import warnings
import zlib

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

import dnnlib

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")  # Pillow's modes for 16-bit greyscale; its range is 0..65535 in all.
_BROKEN = (ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error)
_HAS_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def to_float(pixels):
    """uint8 array in 0..255 -> float32 in [-0.5, 0.5]."""
    return np.asarray(pixels, np.float32) / 255 - np.float32(0.5)


def to_uint8(x):
    """Float array in [-0.5, 0.5], clipped if beyond -> uint8, rounded to nearest."""
    return np.clip((x + 0.5) * 255 + 0.5, 0, 255).astype(np.uint8)


def list_images(folder):
    """Sorted paths of the image files in `folder`, by suffix in any case. UserError if there is no such folder."""
    if not os.path.isdir(folder):
        raise dnnlib.UserError(f"{folder}: no such folder of images")
    names = sorted(n for n in os.listdir(folder) if n.lower().endswith(SUFFIXES) and not n.startswith("."))
    return [os.path.join(folder, n) for n in names]


def open_image(path):
    """Opens an image and reads its header only. UserError naming the file if it cannot be an image.

    Pillow refuses images large enough to be decompression bombs (over about 179 megapixels).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except UnidentifiedImageError:
        raise dnnlib.UserError(f"{path}: not an image, or of a kind that Pillow cannot read") from None
    except (OSError, Image.DecompressionBombError, *_BROKEN) as error:
        if getattr(error, "errno", None) is not None:
            raise  # The file system's own words, e.g. no such file.
        raise dnnlib.UserError(f"{path}: cannot be read ({error})") from None


def upright_size(path):
    """(Width, height) of an image as `decode` will turn it, from its header. UserError naming the file if broken."""
    with open_image(path) as image:
        try:
            exif = Image.Image.getexif(image)  # PNG's own version of it decodes the image.
            return image.size[::-1] if exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8) else image.size
        except _BROKEN as error:
            raise dnnlib.UserError(f"{path}: cannot be read ({error})") from None


def decode(image, path):
    """Decodes the opened `image`, turned upright by its EXIF orientation. UserError naming `path` if it is broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Broken EXIF and the like: the pixels are all we need.
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # Without a copy where it is upright.
            return image
    except (OSError, Image.DecompressionBombError, *_BROKEN) as error:
        raise dnnlib.UserError(f"{path}: cannot be decoded ({error})") from None


def to_rgb(image):
    """Pillow image of any mode -> uint8 array [3, H, W]. 16 bits are scaled, not saturated; alpha is laid on white."""
    if image.mode in _SIXTEEN_BIT:
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257 + 0.5).astype(np.uint8))
    if image.mode in _HAS_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")).transpose(2, 0, 1)


def read_rgb(path):
    """Image file -> uint8 array [3, H, W]."""
    with open_image(path) as image:
        return to_rgb(decode(image, path))


def read_float(path):
    """Image file -> (float32 [3, H, W] in [-0.5, 0.5], kind), where `kind` lets `write_float` write the same kind back.

    Greyscale is repeated over the three channels. 16-bit greyscale keeps its precision. Alpha is kept in `kind`; what
    cannot be kept is told in `kind.loss`.
    """
    with open_image(path) as image:
        deep = ";16" in str(image.tile)  # Pillow has no mode for 16 bits in colour.
        image = decode(image, path)
    kind = dnnlib.EasyDict(mode="RGB", alpha=None, loss=None)
    if image.mode in _SIXTEEN_BIT:
        kind.mode = "I;16"
        x = np.asarray(image, np.float32).clip(0, 65535) / 65535 - 0.5
        return np.repeat(x[None], 3, axis=0), kind
    if image.mode in _HAS_ALPHA or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La", "1")
        kind.alpha = np.asarray(image.convert("RGBA"))[..., 3]
        image = image.convert("RGBA").convert("L" if grey else "RGB")  # Colours as stored, beneath the alpha.
    if image.mode in ("1", "L"):
        kind.mode = "L"
    if deep:
        kind.loss = "its 16 bits a channel are read as 8"
    elif image.mode not in ("1", "L", "RGB"):
        kind.loss = f"its mode {image.mode} becomes RGB"
    return to_float(np.asarray(image.convert("RGB")).transpose(2, 0, 1)), kind


def write_float(path, x, kind=None):
    """Writes float [3, H, W] in [-0.5, 0.5] as an image of the kind that `read_float` returned, by default RGB.

    The suffix of `path` decides the format. UserError if there is no such format or it cannot hold that kind.
    """
    save(path, _to_pillow(x, kind))


def _to_pillow(x, kind):
    mode = kind.mode if kind else "RGB"
    if mode == "I;16":
        image = Image.fromarray(np.clip((x.mean(axis=0) + 0.5) * 65535 + 0.5, 0, 65535).astype(np.uint16))
    elif mode == "L":
        image = Image.fromarray(to_uint8(x.mean(axis=0)))
    else:
        image = Image.fromarray(to_uint8(x).transpose(1, 2, 0))
    if kind and kind.alpha is not None:
        image.putalpha(Image.fromarray(kind.alpha))
    return image


def save(path, image):
    """Saves a Pillow image; it appears under its name only when complete. UserError if the format cannot hold it."""
    check_writable(path)
    try:
        with dnnlib.open_atomic(path, "wb") as f:
            image.save(f, format=_format(path))
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise dnnlib.UserError(f"{path}: {error}; use .png") from None  # E.g. alpha in a JPEG.


def _format(path):
    Image.init()
    return Image.registered_extensions().get(os.path.splitext(path)[1].lower())


def save_uint8(path, pixels):
    """Saves uint8 [3, H, W] or [H, W] as an image."""
    save(path, Image.fromarray(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels))


def centre(pixels, size):
    """The central square of an array [..., H, W], `size` wide and high, or as much of it as there is."""
    y, x = (max(length - size, 0) // 2 for length in pixels.shape[-2:])
    return pixels[..., y : y + size, x : x + size]


def labelled_sheet(rows, font_size=18):
    """Rows of (label, uint8 [3, H, W]) -> a Pillow image of them all, each label above its picture."""
    strip, gap = 30, 4  # Pixels: the height of the labels above a row, the space around the pictures.
    height, width = (max(pixels.shape[axis] for row in rows for _, pixels in row) for axis in (1, 2))
    size = [gap + max(map(len, rows)) * (width + gap), len(rows) * (strip + height) + gap]
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(font_size)
    for y, row in enumerate(rows):
        for x, (label, pixels) in enumerate(row):
            left, top = gap + x * (width + gap), y * (strip + height)
            draw.text((left + width / 2, top + strip / 2), label, fill="black", font=font, anchor="mm")
            sheet.paste(Image.fromarray(pixels.transpose(1, 2, 0)), (left, top + strip))
    return sheet


def check_writable(path, kind=None):
    """UserError if no image, or none of that kind, could be written to `path`: to be known before the work."""
    if _format(path) not in Image.SAVE:
        suffix = os.path.splitext(path)[1]
        raise dnnlib.UserError(f"{path}: no image format is known by the suffix '{suffix}'; use .png")
    dnnlib.util.check_output(path)
    if kind:
        sample = dnnlib.EasyDict(kind, alpha=None if kind.alpha is None else kind.alpha[:1, :1])
        try:
            _to_pillow(np.zeros([3, 1, 1]), sample).save(io.BytesIO(), format=_format(path))
        except (OSError, ValueError) as error:
            raise dnnlib.UserError(f"{path}: {error}; use .png") from None
