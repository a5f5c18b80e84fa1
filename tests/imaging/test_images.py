"""Images of every kind as arrays, and messages about broken files."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from conftest import GOLDEN_DIR
from PIL import Image

import dnnlib
from imaging import images, rgb_files

RGB = np.random.default_rng(0).integers(0, 256, [12, 20, 3], dtype=np.uint8)
DEEP = np.arange(12 * 20, dtype=np.uint16).reshape(12, 20) * 257 + 100


def test_bytes_match_the_original():
    golden = np.load(os.path.join(GOLDEN_DIR, "noise.npz"))
    assert np.array_equal(images.to_uint8(golden["clip_in"]), golden["clip_out"])


def test_bytes_survive_float_conversion():
    every = np.arange(256, dtype=np.uint8)
    x = images.to_float(every)
    assert x.dtype == np.float32 and x[0] == -0.5 and x[255] == 0.5
    assert np.array_equal(images.to_uint8(x), every)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "YCbCr"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    image = Image.fromarray(DEEP) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    path = str(tmp_path / ("image.png" if mode in ("LA", "I;16") else "image.tif"))
    image.save(path)
    pixels = rgb_files.read_rgb(path)
    assert pixels.shape == (3, 12, 20) and pixels.dtype == np.uint8
    assert pixels.min() < 100 and pixels.max() > 150  # Neither black nor saturated.


def test_sixteen_bits_are_scaled(tmp_path):
    path = str(tmp_path / "deep.png")
    Image.fromarray(DEEP).save(path)
    assert np.array_equal(rgb_files.read_rgb(path), np.repeat((DEEP / 257 + 0.5).astype(np.uint8)[None], 3, axis=0))


def test_alpha_is_laid_on_white(tmp_path):
    pixels, notes = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 255, 51]]], np.uint8), []
    path = str(tmp_path / "image.png")
    Image.fromarray(pixels).save(path)
    expected = [[10, 20, 30], [255, 255, 255], [204, 224, 255]]
    assert rgb_files.read_rgb(path, notes.append)[:, 0].T.tolist() == expected
    assert notes == [f"{path}: its alpha is laid on white"]
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["assocalpha"])  # Colours are premultiplied.
    assert rgb_files.read_rgb(path)[:, 0].T.tolist()[2] == [204, 255, 255]


@pytest.mark.parametrize("orientation, turned", [(1, RGB), (3, RGB[::-1, ::-1]), (6, np.rot90(RGB, -1))])
def test_exif_orientation(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / "photo.png")
    Image.fromarray(RGB).save(path, exif=exif)
    assert np.array_equal(rgb_files.read_rgb(path), turned.transpose(2, 0, 1))


def test_list_images_ignores_case(tmp_path):
    for name in ["b.PNG", "a.jpeg", "c.Bmp", "d.JPEG", "notes.txt", ".hidden.png"]:
        (tmp_path / name).touch()
    assert [os.path.basename(p) for p in images.list_images(tmp_path)] == ["a.jpeg", "b.PNG", "c.Bmp", "d.JPEG"]


def test_list_tree(tmp_path, capsys):
    for name in ["b.png", "a/x.jp2", "a/deep/y.JFIF", "a/notes.txt", "out/b.png", "z.heic", ".hidden/c.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/loop").symlink_to(tmp_path)
    found = images.list_tree(tmp_path, leave_out=[str(tmp_path / "out")])
    assert [os.path.relpath(path, tmp_path) for path in found] == ["a/deep/y.JFIF", "a/x.jp2", "b.png"]
    assert f"{tmp_path}: passed over 2 other files or folders, e.g. a/notes.txt" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".tif", ".webp"])
@pytest.mark.parametrize("damage", ["cut", "header", "empty", "text"])
def test_broken_file_is_named(tmp_path, suffix, damage):
    path = str(tmp_path / f"broken{suffix}")
    Image.fromarray(np.tile(RGB, [8, 8, 1])).save(path)
    with open(path, "rb") as f:
        data = f.read()
    broken = {"cut": data[: len(data) // 2], "header": data[:8] + bytes(40), "empty": b"", "text": b"hello " * 50}
    with open(path, "wb") as f:
        f.write(broken[damage])
    with pytest.raises(dnnlib.UserError, match=f"broken{suffix}"):
        rgb_files.read_rgb(path)


def test_unsupported_bmp_is_named(tmp_path):
    path = str(tmp_path / "odd.bmp")
    Image.fromarray(RGB).save(path)
    with open(path, "r+b") as f:
        f.seek(28)
        f.write(b"\x07")  # Bits per pixel: Pillow raises an OSError without errno.
    with pytest.raises(dnnlib.UserError, match=r"odd\.bmp"):
        rgb_files.read_rgb(path)


@pytest.mark.parametrize("actual", ["png", "jpeg", "webp", "tiff", "bmp"])
def test_content_beats_suffix(tmp_path, actual):
    path = str(tmp_path / "photo.gif")
    Image.fromarray(RGB).save(path, actual)
    assert rgb_files.read_rgb(path).shape == (3, 12, 20)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_first_frame_is_read(tmp_path, suffix):
    path, frames = str(tmp_path / f"moving{suffix}"), [Image.new("L", (9, 7), level) for level in (90, 10, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(rgb_files.read_rgb(path).astype(int), 90, atol=2)


def test_postscript_is_refused(tmp_path, monkeypatch):
    """Pillow would pass the file to Ghostscript."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho run > {tmp_path}/mark\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    path = tmp_path / "program.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(dnnlib.UserError, match=r"program\.png: not an image"):
        rgb_files.read_rgb(str(path))
    assert not (tmp_path / "mark").exists()


def bomb(suffix):
    """Return a small file that claims to be an image of gigapixels."""
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, Image.registered_extensions()[suffix])
    data = bytearray(buffer.getvalue())
    if suffix == ".png":
        data[16:24] = struct.pack(">II", 50_000, 50_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif suffix == ".bmp":
        data[18:26] = struct.pack("<II", 50_000, 50_000)
    elif suffix == ".gif":
        data[6:10] = struct.pack("<HH", 65_535, 65_535)
    elif suffix == ".ppm":
        data = data.replace(b"20 12", b"50000 50000")
    return data


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".ppm"])
def test_decompression_bomb_is_refused(tmp_path, suffix):
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(bomb(suffix))
    with pytest.raises(dnnlib.UserError, match=rf"bomb\{suffix}: .*the limit is 180 megapixels"):
        images.open_image(str(path))


def test_largest_cameras_are_within_the_limit(tmp_path):
    path = str(tmp_path / "large.png")
    Image.new("1", (14_204, 10_652)).save(path)  # 151 megapixels.
    with images.open_image(path) as image:
        assert image.size == (14_204, 10_652)


@pytest.mark.parametrize("name, message", [("a.xyz", "suffix"), ("a", "suffix"), ("d.png", "folder"), ("f/a.png", "f")])
def test_check_writable(tmp_path, name, message):
    (tmp_path / "d.png").mkdir()
    (tmp_path / "f").touch()
    with pytest.raises(dnnlib.UserError, match=message):
        images.check_writable(str(tmp_path / name))
