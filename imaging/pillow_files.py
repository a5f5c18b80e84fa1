"""Image files of formats that Pillow reads and writes, with their palettes and metadata.

Only the pixels of 16-bit PNG, PGM and PPM files go through sixteen_bit.py instead of Pillow.
"""

import numpy as np
from PIL import ExifTags, Image

import dnnlib
from imaging import images, sixteen_bit
from imaging.pages import Kind, Page, Source, parts, to_palette

_PALETTE = ("PNG", "GIF", "BMP")
_BILEVEL = ("PNG", "BMP", "PPM")

# Lossless, or the highest quality that is of use.
_SAVE_OPTIONS: dict[str, dict] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},  # "exact" keeps the colours of transparent pixels.
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}

# CICP code points (primaries, transfer) that mean sRGB, video that displays alike, or "unspecified".
_SRGB_CODES = ((1, 13), (1, 1), (1, 2), (2, 2), (1, 6), (2, 13))
_SRGB_GAMMA = 0.45455
_SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # White, red, green, blue.


def open_source(path, sample_range):
    """Return the Source of an image file that Pillow knows. Reads the header only; raises UserError if it is broken."""
    with images.open_image(path) as image:
        channels = 4 if image.mode == "P" else len(image.getbands())
        nbytes = image.width * image.height * channels * (1 + sixteen_bit.is_deep(image))
        dtype = "float32" if image.mode == "F" else "uint16" if _is_deep(image) or image.mode[0] == "I" else "uint8"
        size, orientation = (image.height, image.width), images.orientation(image, path)
        return Source(1, size, nbytes, lambda index: _read(path, sample_range), image.mode, orientation, dtype)


def _read(path, sample_range):
    with images.open_image(path) as image:
        with images.readable(path):  # Pillow walks through the file to count its frames.
            deep, frames = sixteen_bit.is_deep(image), getattr(image, "n_frames", 1)
        if _is_deep(image):
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


def _is_deep(image):
    """Whether sixteen_bit.py decodes an opened Pillow image."""
    is_text = image.format == "PPM" and image.tile[0].codec_name == "ppm_plain"
    return sixteen_bit.is_deep(image) and image.format in ("PNG", "PPM") and not is_text


def _bits(path, fmt):
    """Return the bits per channel of a JPEG 2000 or AVIF file, which Pillow decodes to 8; 8 for other formats."""
    if fmt == "JPEG2000":
        head = _head(path)
        size = head.find(b"\xff\x4f\xff\x51")  # The codestream starts here; its first segment is the image size.
        return (head[size + 42] & 127) + 1 if 0 <= size < len(head) - 42 else 8
    if fmt == "AVIF":
        head = _head(path)
        codec = head.find(b"av1C")
        flags = head[codec + 6] if 0 <= codec < len(head) - 6 else 0
        if flags & 0x40:
            return 12 if flags & 0x20 else 10
    return 8


def _colour_losses(path, image):
    """Describe the colour information of a PNG or AVIF file that is not kept; nothing is lost if it means sRGB."""
    info = image.info
    if image.format not in ("PNG", "AVIF") or "icc_profile" in info:
        return []
    head = _head(path)
    code = head.find(b"cICP" if image.format == "PNG" else b"nclx")
    if code >= 0:
        points = head[code + 4 : code + 6] if image.format == "PNG" else head[code + 5 : code + 8 : 2]
        return [] if tuple(points) in _SRGB_CODES else ["its colour space (CICP) is not kept"]
    losses = []
    if "srgb" not in info:
        if abs(info.get("gamma", _SRGB_GAMMA) - _SRGB_GAMMA) > 0.02:
            losses.append("its gamma is not kept")
        if not np.allclose(info.get("chromaticity", _SRGB_CHROMATICITIES), _SRGB_CHROMATICITIES, atol=0.01):
            losses.append("its chromaticities are not kept")
    return losses


def _head(path):
    with open(path, "rb") as f:
        return f.read(2**16)


def _from_pillow(image, sample_range):
    kind = Kind(image.mode == "1", sample_range, **_metadata(image))
    if image.mode == "P":
        return _from_palette(image, kind)
    if image.mode.startswith("I"):
        return Page(np.asarray(image).clip(0, 65535).astype(np.uint16)[..., None], kind)
    if image.mode not in ("1", "F", "L", "LA", "RGB", "RGBA"):
        mode = "RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB"
        profile = ", without its colour profile" if kind.icc else ""
        kind.losses.append(f"its mode {image.mode} becomes {mode}{profile}")
        kind.icc = None  # The profile describes other channels.
        image = image.convert(mode)
    if "transparency" in image.info:  # The file marks one colour as transparent.
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    return Page(_samples(image.convert("L") if image.mode == "1" else image), kind)


def _from_palette(image, kind):
    indices = np.asarray(image)
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    ramp.putpalette(image.palette)
    ramp.info = image.info
    count = max(len(image.getpalette()) // 3, int(indices.max()) + 1)
    entries = np.asarray(ramp.convert("RGBA"))[0, :count]
    kind.palette = entries, indices
    opaque = entries[:, 3].min() == 255
    return Page((entries[:, :3] if opaque else entries)[indices], kind)


def _samples(image):
    """Return the samples [H, W, C] of a decoded Pillow image.

    They are copied part by part, because NumPy's own conversion holds three copies of the image at once.
    """
    dtype = np.float32 if image.mode == "F" else np.uint8
    samples = np.empty([image.height, image.width, len(image.getbands())], dtype)
    for rows in parts(image.height, 256):
        part = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
        samples[rows] = part.reshape(samples[rows].shape)
    return samples


def _metadata(image):
    """Return the fields of Kind that come from the metadata of a Pillow image."""
    exif = image.info.get("exif")
    if exif and not exif.startswith(b"Exif\0\0"):
        exif = b"Exif\0\0" + exif
    return {"exif": exif, "icc": image.info.get("icc_profile"), "dpi": image.info.get("dpi")}


def _read_sixteen_bit(path, image, sample_range):
    kind = Kind(sample_range=sample_range, **_metadata(image))
    with images.readable(path), open(path, "rb") as f:
        samples = sixteen_bit.decode(f, image)
    exif = Image.Exif()
    exif.load(kind.exif or b"")
    orientation = exif.pop(ExifTags.Base.Orientation, 1)
    if orientation != 1:
        kind.exif = exif.tobytes() if exif else None
    return Page(images.upright(samples, orientation), kind)


def write(path, page):
    """Write `page` to `path` in the format of its suffix; the file appears under its name when it is complete."""
    fmt = images.format_of(path)
    if page.samples.dtype == np.uint16:
        with dnnlib.open_atomic(path, "wb") as f:
            f.writelines(sixteen_bit.encode_png(page) if fmt == "PNG" else sixteen_bit.encode_pnm(page))
        return
    image, transparency = _to_pillow(page, fmt)
    options = {"icc_profile": page.kind.icc, "dpi": page.kind.dpi, "exif": page.kind.exif, "transparency": transparency}
    options = {name: value for name, value in options.items() if value is not None}
    images.save(path, image, **_SAVE_OPTIONS.get(fmt, {}), **options)


def _to_pillow(page, fmt):
    """Return (Pillow image of `page`, its transparent palette entries or None)."""
    found = to_palette(page) if page.kind.palette and fmt in _PALETTE else None
    if found:
        indices, entries = found
        image, alpha = Image.fromarray(indices), entries[:, 3]
        image.putpalette(entries[:, :3].tobytes())
        if alpha.min() == 255:
            return image, None
        return image, int(alpha.argmin()) if fmt == "GIF" else alpha.tobytes()
    samples = page.samples[..., 0] if page.samples.shape[2] == 1 else page.samples
    if page.kind.bilevel and page.alpha is None and fmt in _BILEVEL:
        return Image.fromarray(samples >= 128), None
    return Image.fromarray(samples), None
