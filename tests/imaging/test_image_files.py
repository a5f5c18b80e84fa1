"""Image files of every kind: with a network that changes nothing, the written file holds what was read."""

import os

import imagecodecs
import numpy as np
import pytest
import tifffile
from conftest import Identity
from PIL import Image, ImageCms, PngImagePlugin

import dnnlib
from imaging import image_files, images, rgb_files, sixteen_bit
from inference import denoise_files

HEIGHT, WIDTH = 37, 53
RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, [HEIGHT, WIDTH, 4], dtype=np.uint8)
DEEP = RNG.integers(0, 65536, [HEIGHT, WIDTH, 4], dtype=np.uint16)
FLOATS = RNG.normal(0.5, 1, [HEIGHT, WIDTH, 3])
FLOATS[3, 4] = np.nan
FLOATS[5, 6, 1] = np.inf
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF = Image.Exif()
EXIF[0x010F] = "Maker"
EXIF[0x8769] = {0x9003: "2020:01:02 03:04:05"}
EXIF[0x8825] = {1: "N"}
METADATA = {"exif": EXIF.tobytes(), "icc_profile": ICC, "dpi": (300, 300)}
TRANSPARENCIES = {"none": None, "one": 3, "levels": bytes(range(100, 116))}


def denoise(image, out, compare=None, sample_range=None, net=None, max_memory=2**32):
    denoise_files._denoise_file(
        net or Identity(), denoise_files.Job(image, out, compare), max_memory, sample_range, None, False
    )


def bytes_of(mode):
    if mode == "P":
        return Image.fromarray(BYTES[..., :3]).quantize(50)
    return Image.fromarray(BYTES).convert(mode)


def pillow_facts(path):
    with Image.open(path) as image:
        image.load()
        exif = image.getexif()
        metadata = {name: image.info.get(name) for name in ("icc_profile", "transparency")}
        dpi = [round(v) for v in image.info.get("dpi", [])]
        return np.asarray(image), image.mode, metadata, dpi, dict(exif.get_ifd(0x8769)), dict(exif.get_ifd(0x8825))


@pytest.fixture(autouse=True)
def _in_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


EIGHT_BIT = [("png", mode) for mode in ("1", "L", "LA", "RGB", "RGBA", "P")]
EIGHT_BIT += [("tif", mode) for mode in ("1", "L", "LA", "RGB", "RGBA", "P")]
EIGHT_BIT += [("bmp", mode) for mode in ("1", "L", "RGB", "P")]
EIGHT_BIT += [("webp", "RGB"), ("webp", "RGBA"), ("gif", "P"), ("pgm", "L"), ("ppm", "RGB")]


@pytest.mark.parametrize("suffix,mode", EIGHT_BIT)
def test_eight_bits(suffix, mode):
    options = METADATA if suffix in ("png", "tif", "webp") else {}
    bytes_of(mode).save(f"in.{suffix}", **options, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    denoise(f"in.{suffix}", f"out.{suffix}")
    before, after = pillow_facts(f"in.{suffix}"), pillow_facts(f"out.{suffix}")
    assert before[1] == mode
    assert np.array_equal(after[0], before[0]) and after[1:] == before[1:]
    assert not options or after[4:] == ({0x9003: "2020:01:02 03:04:05"}, {1: "N"})


@pytest.mark.parametrize("transparency", TRANSPARENCIES)
@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_transparency(suffix, transparency):
    if suffix == "gif" and transparency == "levels":
        pytest.skip("GIF has no levels of transparency")
    Image.fromarray(BYTES[..., :3]).quantize(16).save(f"in.{suffix}", transparency=TRANSPARENCIES[transparency])
    denoise(f"in.{suffix}", f"out.{suffix}")
    before, after = Image.open(f"in.{suffix}"), Image.open(f"out.{suffix}")
    assert after.mode == before.mode == "P"
    assert np.array_equal(np.asarray(after), np.asarray(before))
    assert np.array_equal(np.asarray(after.convert("RGBA")), np.asarray(before.convert("RGBA")))


def test_transparent_colour_becomes_alpha():
    Image.fromarray(BYTES[..., :3]).save("in.png", transparency=tuple(BYTES[0, 0, :3].tolist()))
    denoise("in.png", "out.png")
    assert np.array_equal(np.asarray(Image.open("out.png")), np.asarray(Image.open("in.png").convert("RGBA")))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png(channels):
    pixels = np.ascontiguousarray(DEEP[..., :channels])
    data = imagecodecs.png_encode(pixels)
    with open("in.png", "wb") as f:
        f.write(data)
    denoise("in.png", "out.png")
    with open("out.png", "rb") as f:
        assert np.array_equal(imagecodecs.png_decode(f.read()).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("suffix,channels", [("pgm", 1), ("ppm", 3)])
def test_sixteen_bit_pnm(suffix, channels):
    data = b"P%d\n# comment\n%d %d\n65535\n" % (5 if channels == 1 else 6, WIDTH, HEIGHT)
    data += DEEP[..., :channels].astype(">u2").tobytes()
    with open(f"in.{suffix}", "wb") as f:
        f.write(data)
    denoise(f"in.{suffix}", f"out.{suffix}")
    with open(f"out.{suffix}", "rb") as f:
        assert f.read().split(b"65535\n", 1)[-1] == data.split(b"65535\n", 1)[-1]


def tiff_facts(path):
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        facts = [page.dtype, page.axes, page.photometric, page.compression, page.predictor, page.extrasamples]
        facts += [page.bitspersample, page.planarconfig, page.resolution, page.resolutionunit, page.description]
        facts += [tiff.byteorder, tiff.is_imagej, tiff.is_ome, tiff.imagej_metadata, len(tiff.pages)]
        return [page.asarray() for page in tiff.pages], facts


GREY = {"photometric": "minisblack"}
RGB = {"photometric": "rgb"}
PLANES = np.moveaxis(DEEP, -1, 0)
TIFFS = {
    "16-bit": (DEEP[..., 0], GREY),
    "16-bit grey and alpha": (DEEP[..., :2], GREY | {"extrasamples": ["unassalpha"]}),
    "16-bit RGB": (DEEP[..., :3], RGB),
    "16-bit RGBA": (DEEP, RGB | {"extrasamples": ["assocalpha"], "compression": "zlib", "predictor": 2}),
    "LZW": (DEEP[..., :3], RGB | {"compression": "lzw", "predictor": 2}),
    "planar": (PLANES[:3], RGB | {"planarconfig": "separate"}),
    "white is zero": (DEEP[..., 0], {"photometric": "miniswhite"}),
    "bilevel, white is zero": (BYTES[..., 0] > 99, {"photometric": "miniswhite", "compression": "packbits"}),
    "big-endian": (DEEP[..., :3], RGB | {"byteorder": ">", "resolution": (7, 7), "resolutionunit": 3}),
    "float16": (FLOATS.astype(np.float16), RGB),
    "float32": (FLOATS.astype(np.float32), RGB | {"compression": "zlib", "predictor": 3}),
    "float64 grey": (FLOATS[..., 0], GREY),
    "stack": (PLANES, GREY | {"resolution": (3, 3), "description": "four planes"}),
    "stack of 16-bit RGB": (np.stack([DEEP[..., :3], DEEP[..., 1:]]), RGB | {"compression": "zlib"}),
    "stack of ImageJ": (PLANES, {"imagej": True, "metadata": {"unit": "um", "axes": "ZYX", "Labels": list("abcd")}}),
    "stack of OME": (PLANES, GREY | {"ome": True, "metadata": {"axes": "ZYX"}}),
}


@pytest.mark.parametrize("name", TIFFS)
def test_tiff(name):
    pixels, options = TIFFS[name]
    tifffile.imwrite("in.tif", pixels, **options)
    denoise("in.tif", "out.tif")
    (before, before_facts), (after, after_facts) = tiff_facts("in.tif"), tiff_facts("out.tif")
    assert after_facts == before_facts
    for a, b in zip(after, before, strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def test_non_finite_samples_stay_apart():
    tifffile.imwrite("in.tif", np.where(np.isfinite(FLOATS), 100.0, np.nan).astype(np.float32), photometric="rgb")

    class Darker(Identity):
        def run(self, x):
            assert np.isfinite(x).all()
            return x - 0.25

    denoise("in.tif", "out.tif", sample_range=(0, 200), net=Darker())
    expected = np.where(np.isfinite(FLOATS), 50.0, np.nan)
    np.testing.assert_array_equal(tifffile.imread("out.tif"), expected.astype(np.float32))


def test_metadata_across_formats():
    Image.fromarray(BYTES[..., :3]).save("0.png", **METADATA)
    for before, after in [("0.png", "1.tif"), ("1.tif", "2.jpg"), ("2.jpg", "3.webp"), ("3.webp", "4.tif")]:
        denoise(before, after)
        _, mode, metadata, _, exif, gps = pillow_facts(after)
        assert (mode, metadata["icc_profile"]) == ("RGB", ICC)
        assert (exif, gps) == ({0x9003: "2020:01:02 03:04:05"}, {1: "N"})
    assert pillow_facts("2.jpg")[3] == [300, 300]
    difference = np.asarray(Image.open("2.jpg")).astype(int) - BYTES[..., :3]
    assert np.abs(difference).mean() < 5  # Needs quality 95 and 4:4:4 for colour noise.

    data = imagecodecs.png_encode(np.ascontiguousarray(DEEP[..., :3]))
    page = image_files.read_float("0.png")[1]
    chunks = [*sixteen_bit.encode_png(type(page)(DEEP[..., :3], page.kind))]
    assert b"".join([chunks[0], chunks[-1]]) == data
    with open("deep.png", "wb") as f:
        f.writelines(chunks)
    denoise("deep.png", "deep.tif")
    for path in ("deep.png", "deep.tif"):
        with image_files.open_source(path) as source:
            kind = source.read(0).kind
        exif = Image.Exif()
        exif.load(kind.exif)
        assert kind.icc == ICC and exif[0x010F] == "Maker" and exif.get_ifd(0x8825)[1] == "N"
        assert [round(v) for v in kind.dpi] == [300, 300]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_applied_then_dropped(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(BYTES[..., :3]).save("in.png", exif=exif)
    expected = rgb_files.read_rgb("in.png").transpose(1, 2, 0)  # Turned by Pillow.
    tifffile.imwrite("in.tif", DEEP[..., :3], photometric="rgb", extratags=[(0x0112, 3, 1, orientation, True)])
    page = image_files.read_float("in.png")[1]
    page.kind.exif = exif.tobytes()
    page.samples = DEEP[..., :3]
    with open("deep.png", "wb") as f:
        f.writelines(sixteen_bit.encode_png(page))
    for path in ("in.png", "in.tif", "deep.png"):
        denoise(path, f"out_{path}")
        page = image_files.read_float(f"out_{path}")[1]
        deep = images.upright(DEEP[..., :3], orientation)
        assert np.array_equal(page.samples, expected if path == "in.png" else deep)
    assert np.array_equal(images.upright(BYTES[..., :3], orientation), expected)


def test_cmyk_becomes_rgb_with_a_note(capsys):
    Image.fromarray(BYTES[..., :3]).convert("CMYK").save("in.tif", icc_profile=ICC)
    denoise("in.tif", "out.png")
    assert "note: in.tif: its mode CMYK becomes RGB, without its colour profile" in capsys.readouterr().out
    assert np.array_equal(np.asarray(Image.open("out.png")), np.asarray(Image.open("in.tif").convert("RGB")))
    assert "icc_profile" not in Image.open("out.png").info


def test_denoised_palette_is_refitted():
    Image.fromarray(BYTES[..., :3]).quantize(256).save("in.png", transparency=7)
    transparent = np.asarray(Image.open("in.png")) == 7

    class Ramp(Identity):
        def run(self, x):
            return np.broadcast_to(np.linspace(-0.5, 0.5, x.shape[3], dtype=np.float32), x.shape)

    denoise("in.png", "out.png", net=Ramp())
    out = Image.open("out.png")
    pixels = np.asarray(out.convert("RGBA"))
    assert out.mode == "P" and np.array_equal(pixels[..., 3] == 0, transparent)
    ramp = np.linspace(0, 255, WIDTH)[None, :, None]
    assert np.abs(pixels[..., :3] - ramp)[~transparent].max() < 2


REFUSED = [("rgba.png", "jpg", "JPEG cannot hold alpha"), ("rgba.png", "bmp", "BMP cannot hold alpha")]
REFUSED += [("deep.tif", "jpg", "JPEG cannot hold 16 bits a channel"), ("rgba.png", "gif", "GIF cannot hold more than")]
REFUSED += [
    ("float.tif", "png", "PNG cannot hold floating-point"),
    ("stack.tif", "png", "cannot hold a stack of 4 pages"),
]


@pytest.mark.parametrize("name,suffix,message", REFUSED)
def test_unsuitable_format_is_refused_early(name, suffix, message):
    bytes_of("RGBA").save("rgba.png")
    tifffile.imwrite("deep.tif", DEEP[..., :3], photometric="rgb")
    tifffile.imwrite("float.tif", FLOATS[..., 0])
    tifffile.imwrite("stack.tif", PLANES, photometric="minisblack")
    before = os.listdir()
    with pytest.raises(dnnlib.UserError, match=message):
        denoise(name, f"out.{suffix}", net="is not reached")
    assert os.listdir() == before


@pytest.mark.parametrize("kind", ["stack", "zip", "16-bit PNG"])
@pytest.mark.parametrize("kept", [0, 3, 0.1, 0.5, 0.9, 0.98])
def test_truncated_file_is_named(kind, kept):
    if kind == "16-bit PNG":
        data = imagecodecs.png_encode(DEEP)
    else:
        tifffile.imwrite("in", PLANES, photometric="minisblack", compression="zlib" if kind == "zip" else None)
        with open("in", "rb") as f:
            data = f.read()
    with open("in", "wb") as f:
        f.write(data[: kept if kept in (0, 3) else int(kept * len(data))])
    with pytest.raises(dnnlib.UserError, match=r"^in: "):
        denoise("in", "out.tif")
    assert os.listdir() == ["in"]


@pytest.mark.parametrize("samples", [0, 6, 11])
def test_truncated_ppm_is_not_grey(samples):
    with open("in", "wb") as f:
        f.write(b"P6\n3 2\n65535\n" + bytes(2 * samples))
    with pytest.raises(dnnlib.UserError, match=r"^in: cannot be decoded \(the file is truncated\)$"):
        denoise("in", "out.tif")


RAW = {"photometric": "minisblack", "extratags": [(50706, 1, 4, b"\1\4\0\0", True)]}
UNKNOWN = [
    (DEEP[..., 0].astype(np.int32), {}, "samples of type int32"),
    (DEEP, {"photometric": "separated"}, "SEPARATED of 16 bits"),
    (DEEP[..., 0], {"photometric": "cfa", "extratags": [(33421, 3, 2, (2, 2), True)]}, "CFA of 16 bits"),
    (DEEP[..., 0], RAW, "a raw photograph"),
    (DEEP, RGB | {"extrasamples": ["unspecified"]}, "4 channels; .* marked as alpha"),
    (DEEP[..., :2], GREY | {"extrasamples": ["unspecified"], "planarconfig": "contig"}, "2 channels"),
]


@pytest.mark.parametrize("samples,options,message", UNKNOWN)
def test_unsupported_tiff_is_refused(samples, options, message):
    tifffile.imwrite("in.tif", samples, **options)
    with pytest.raises(images.Refused, match=rf"^in\.tif: {message}"):
        denoise("in.tif", "out.tif")


def test_lost_bits_and_colours_are_noted(capsys):
    with open("in.jp2", "wb") as f:
        f.write(imagecodecs.jpeg2k_encode(DEEP[..., :3] >> 4, level=0, bitspersample=12))
    with open("in.avif", "wb") as f:
        f.write(imagecodecs.avif_encode(DEEP[..., :3] >> 6, bitspersample=10))
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (100_000).to_bytes(4, "big"))
    Image.fromarray(BYTES[..., :3]).save("in.png", pnginfo=info)
    for suffix in ("jp2", "avif", "png"):
        Image.fromarray(BYTES[..., :3]).save(f"plain.{suffix}")
        denoise(f"plain.{suffix}", "out.png")
        denoise(f"in.{suffix}", "out.png")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: in.jp2: its 12 bits a channel become 8",
        "note: in.avif: its 10 bits a channel become 8",
        "note: in.png: its gamma is not kept",
    ]


@pytest.mark.parametrize("dtype,black,white", [(np.uint16, 256, 4095), (np.uint8, 16, 235), (np.float32, -3, 200)])
def test_network_sees_the_given_range(dtype, black, white):
    samples = np.linspace(black, white, HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3).astype(dtype)
    samples[0, 0] = 5  # Outside the given range.
    tifffile.imwrite("in.tif", samples, **RGB)
    seen = []

    class Darker(Identity):
        def run(self, x):
            seen.append(np.array(x[0]))
            return x - np.float32(0.125)

    denoise("in.tif", "out.tif", sample_range=(black, white), net=Darker())
    x = (samples.astype(np.float64) - black) / (white - black) - 0.5
    np.testing.assert_allclose(seen[0].transpose(1, 2, 0), x, atol=1e-6)
    expected = np.maximum(samples - 0.125 * (white - black), -np.inf if dtype == np.float32 else 0)
    np.testing.assert_allclose(tifffile.imread("out.tif"), expected, atol=1e-3 if dtype == np.float32 else 0.51)


DOUBTFUL = [  # Samples, given range, whether it is doubtful.
    (np.clip(FLOATS, 0, 1) * 255, None, True),
    (np.clip(FLOATS, 0, 1) * 255, (0, 255), False),
    (0.5 + 0.25 * FLOATS, None, False),  # Strong noise reaches outside the range.
    (DEEP[..., :3] >> 4, None, True),
    (DEEP[..., :3] >> 2, None, True),
    (DEEP[..., :3] >> 4, (0, 4095), False),
    (DEEP[..., :3], None, False),
    (DEEP[..., :3], (0, 4095), True),
    (BYTES[..., :3] >> 4, None, False),  # A dark photograph; 8 bits never hold fewer.
    (BYTES[..., :3], (0, 4095), True),
    (np.zeros([8, 8, 3], np.uint16), None, False),
    (np.full([8, 8, 3], np.nan), None, False),
]


@pytest.mark.parametrize("samples,sample_range,doubtful", DOUBTFUL)
def test_doubtful_range_warning(samples, sample_range, doubtful, capsys):
    tifffile.imwrite("in.tif", samples, **RGB)
    denoise("in.tif", "out.tif", sample_range=sample_range)
    warning = capsys.readouterr().err
    if doubtful:
        low, high = np.nanmin(samples), np.nanmax(samples)
        assert warning.startswith(f"warning: in.tif: its samples reach from {low:g} to {high:g}, but black is taken")
        assert warning.endswith("; set both by --range LOW HIGH\n")
    else:
        assert not warning


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_survive_float_conversion(dtype):
    every = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    assert np.array_equal(images.to_uint(images.to_float(every), dtype), every)


def test_python_interface():
    tifffile.imwrite("in.tif", DEEP, photometric="rgb")
    x, page = image_files.read_float("in.tif")
    assert x.shape == (3, HEIGHT, WIDTH) and x.dtype == np.float32 and -0.5 <= x.min() < x.max() <= 0.5
    image_files.write_float("out.png", x, page)
    with open("out.png", "rb") as f:
        assert np.array_equal(imagecodecs.png_decode(f.read()), DEEP)
    image_files.write_float("plain.png", x)
    assert Image.open("plain.png").mode == "RGB"
