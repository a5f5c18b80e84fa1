"""Tests of `config.py infer-image`."""

import os
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

import config
import dnnlib
from imaging import pages
from inference import denoise_files, tiling
from inference.noise_level import estimate_noise_level

KINDS = [("RGB", (33, 47)), ("L", (64, 64)), ("LA", (20, 10)), ("RGBA", (5, 70)), ("I;16", (9, 9))]


@pytest.mark.parametrize("mode,size", KINDS)
def test_infer_image_writes_the_same_kind_of_image(snapshot, tmp_path, monkeypatch, mode, size):
    monkeypatch.chdir(tmp_path)
    rng, (width, height) = np.random.default_rng(0), size
    if mode == "I;16":
        pixels = rng.integers(0, 65536, [height, width], dtype=np.uint16)
    else:
        channels = [] if mode == "L" else [len(mode)]
        pixels = rng.integers(0, 256, [height, width, *channels], dtype=np.uint8)
    Image.fromarray(pixels).save("in.png")
    config.main(["infer-image", "--image", "in.png", "--out", "new/out.png", "--network-snapshot", snapshot])
    with Image.open("new/out.png") as out:
        assert out.mode == mode and out.size == size
        np.testing.assert_allclose(np.asarray(out).astype(int), pixels, atol=1)
    assert not os.path.exists("results")


COMPARE = ["compare", "--image", "a.png", "--out", "b.png", "text=c.pickle"]
INFER = ["infer-image", "--image", "a.png", "--out", "b.png"]


@pytest.mark.parametrize(
    "words,precision",
    [
        (INFER, "float32"),
        (COMPARE, "float32"),
        (["validate"], "auto"),
        (["train"], "auto"),
        (["--precision", "bfloat16", *INFER], "bfloat16"),
        ([*COMPARE, "--precision", "auto"], "auto"),
    ],
)
def test_precision(words, precision, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dnnlib.UserError, match="no such file"):  # The settings are printed before files are missed.
        config.main([*words, "--dry-run"])
    assert f"precision = '{precision}'" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "change,status,message",
    [
        ({"--image": "none.png"}, 1, "error: none.png: no such file or folder"),
        ({"--out": "out.xyz"}, 1, "error: out.xyz: no image format is known by the suffix '.xyz'; use .png"),
        ({"--image": "alpha.png", "--out": "out.jpg"}, 1, "error: out.jpg: JPEG cannot hold alpha; use .png or .tif"),
        ({"--out": "in.png/out.png"}, 1, "error: in.png/out.png: in.png is not a folder"),
        ({"--network-snapshot": "in.png"}, 1, "error: in.png: "),
        ({"--out": None}, 2, "config.py infer-image: error: the following arguments are required: --out"),
    ],
)
def test_mistakes_end_in_one_line(command, snapshot, tmp_path, change, status, message):
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "alpha.png")
    options = {"--image": "in.png", "--out": "out.png", "--network-snapshot": snapshot} | change
    done = command("config.py", "infer-image", *(w for name, value in options.items() if value for w in (name, value)))
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].startswith(message)
    assert sorted(os.listdir(tmp_path)) == ["alpha.png", "in.png"]


@pytest.mark.parametrize(
    "change,message",
    [
        ({"--out": "in.png"}, r"in\.png: would overwrite in\.png; name another file or folder"),
        ({"--image": ".", "--out": "out.png"}, r"out\.png: is a file; name a folder for"),
        ({"--image": "*.jpg"}, r"\*\.jpg: no such file, and no image there"),
        ({"--max-memory": "512MiB"}, r"in\.png: 8x8 pixels need .*; --max-memory is 0\.5 GiB"),
        ({"--float-range": ("1", "0")}, "--range 1 0: the first has to be less"),
    ],
)
def test_mistakes_with_several_images_and_sizes(snapshot, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("in.png")
    options = {"--image": "in.png", "--out": "out.jpg", "--network-snapshot": snapshot} | change
    words = [w for name, value in options.items() for w in (name, *([value] if isinstance(value, str) else value))]
    with pytest.raises(dnnlib.UserError, match=message):
        config.main(["infer-image", *words])
    assert os.listdir() == ["in.png"]


def test_a_folder_with_a_broken_file_and_all_that_can_be_said_of_it(command, snapshot, tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    noisy = 128 + rng.normal(0, 25, [400, 390, 3]).clip(-127, 127)
    Image.fromarray(noisy.astype(np.uint8)).save(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_bytes(b"no image")
    stack = rng.integers(0, 65536, [2, 30, 40], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "in/c.tif", stack, photometric="minisblack")
    (tmp_path / "in/notes.txt").touch()
    Image.fromarray(noisy[:20, :30].astype(np.uint8)).save(os.fsencode(tmp_path / "in/d") + b"\xff.png")
    options = ["--network-snapshot", snapshot, "--compare", "compared", "--noise-level", "auto"]
    done = command("config.py", "infer-image", "--image", "in", "--out", "out", *options)

    assert done.returncode == 1
    passed, first, last = done.stderr.splitlines()
    assert passed.startswith("in: passed over 1 other files or folders, e.g. notes.txt")
    assert first.startswith("error: in/b.png: not an image")
    assert last == "error: 1 of 4 images could not be denoised: in/b.png"
    assert sorted(os.listdir(tmp_path / "out")) == ["a.png", "c.tif", "d\udcff.png"]
    assert sorted(os.listdir(tmp_path / "compared")) == ["a.png.png", "c.tif.tif", "d\udcff.png.png"]
    sigma = float(re.search(r"in/a.png: estimated noise level: sigma (\d+\.\d) of 255", done.stdout)[1])
    assert sigma == pytest.approx(25, rel=0.05)
    assert "in/c.tif, page 2 of 2: estimated" in done.stdout and "Denoised in/c.tif to out/c.tif." in done.stdout

    with Image.open(tmp_path / "compared/a.png.png") as compared:
        x, y, removed = np.split(np.asarray(compared).astype(int), 3, axis=1)
    assert np.array_equal(x, np.asarray(Image.open(tmp_path / "in/a.png")))
    np.testing.assert_allclose(y, x, atol=1)
    np.testing.assert_allclose(removed, 127.5, atol=4)  # The network changes nothing.
    assert tifffile.imread(tmp_path / "compared/c.tif.tif").shape == (2, 30, 120, 3)
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out/c.tif").astype(int), stack, atol=1)

    options = ["--out", "again/", "--network-snapshot", snapshot]
    done = command("config.py", "infer-image", "--image", "in/a.png", "in/c.tif", *options)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "again")) == ["a.png", "c.tif"]


def test_memory_decides_over_tiles_and_not_over_the_result(snapshot, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 65536, [380, 420, 3], dtype=np.uint16)
    tifffile.imwrite("in.tif", pixels, photometric="rgb")
    least = tiling.BYTES_OF_PROCESS + 2 * pixels.nbytes + tiling.BYTES_PER_PIXEL * (2 * tiling.MARGIN + 32) ** 2
    for name, size in [("whole.tif", 2**32), ("tiled.tif", least + 2**20)]:
        options = ["--max-memory", f"{size / 2**20}MiB", "--network-snapshot", snapshot]
        config.main(["infer-image", "--image", "in.tif", "--out", name, *options])
        assert ("420x380 pixels in" in capsys.readouterr().out) == (name == "tiled.tif")
        np.testing.assert_allclose(tifffile.imread(name).astype(int), pixels, atol=1)
    with pytest.raises(dnnlib.UserError, match=r"in\.tif: 420x380 pixels need .* GiB; --max-memory is"):
        config.main(["infer-image", "--image", "in.tif", "--out", "x.tif", "--max-memory", "600MiB", *options[2:]])


def test_jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a/x.png", "b/x.png", "a/y.JPG", "a/z[1].png", "a/c [2]/w.png"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").close()
    job = denoise_files.Job
    assert denoise_files.find_jobs(["a/x.png"], "out.jpg", None) == [job("a/x.png", "out.jpg", None)]
    assert denoise_files.find_jobs(["a/x.png"], "b", "c.png") == [job("a/x.png", "b/x.png", "c.png")]
    assert denoise_files.find_jobs(["a/x.png"], "new/", None) == [job("a/x.png", "new/x.png", None)]
    assert denoise_files.find_jobs(["a/z[1].png"], "c", None) == [job("a/z[1].png", "c", None)]
    assert denoise_files.find_jobs(["a/y*"], "out", "c") == [job("a/y.JPG", "out/y.JPG", "c/y.JPG.png")]

    tree = {"x.png", "y.JPG", "z[1].png", "c [2]/w.png"}
    for images, results in [
        (["a"], tree),
        (["a/"], tree),
        (["a/x.png", "a/z[1].png"], {"x.png", "z[1].png"}),
        (["a/x.png", "b/x.png"], {"a/x.png", "b/x.png"}),
        (["b", "a/c [2]"], {"b/x.png", "a/c [2]/w.png"}),
        (["*/x.png"], {"a/x.png", "b/x.png"}),
        (["a/**/*.png"], {"x.png", "z[1].png", "c [2]/w.png"}),
        (["a/z[1]*"], {"z[1].png"}),
        (["a/c [2]/[uvw].png"], {"w.png"}),
        (["a/[xy].*"], {"x.png", "y.JPG"}),
    ]:
        for out in ("out", "a/out/"):  # What an earlier call has left is no image of the folder.
            jobs = denoise_files.find_jobs(images, out, None)
            assert {os.path.relpath(job.out, out) for job in jobs} == results, images
    os.makedirs("a/out")
    os.link("a/x.png", "a/out/x.png")
    assert {os.path.relpath(job.out, "a/out") for job in denoise_files.find_jobs(["a"], "a/out", None)} == tree
    open("a/s.npy", "w").close()
    assert denoise_files.find_jobs(["a/s.npy"], "out/", "c/") == [job("a/s.npy", "out/s.npy.tif", "c/s.npy.tif.tif")]
    for images, out, compare in [
        (["a"], "a", None),
        (["a/x.png", "b/x.png"], ".", None),
        (["b/x.png"], "o.png", "o.png"),
    ]:
        with pytest.raises(dnnlib.UserError, match="would overwrite"):
            denoise_files.find_jobs(images, out, compare)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (5, 9), (1100, 30)])
def test_noise_level_of_any_size(size):
    x = np.random.default_rng(0).normal(0, 10 / 255, [3, *size]).astype(np.float32)
    page = pages.Page(np.moveaxis(x, 0, -1) + 0.5, pages.Kind())
    level = estimate_noise_level(page)
    assert np.isnan(level) if min(size) < 5 else 0 < level < 30
    if size == (1100, 30):
        assert level == pytest.approx(10, rel=0.1)


def test_a_failure_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("in.tif", np.zeros([3, 8, 8], np.uint16), photometric="minisblack")

    class Breaks:
        pages, input = 0, np.zeros([1, 3, 1, 1])

        def for_page(self, page, image):
            return self

        def run(self, x):
            self.pages += 1
            if self.pages == 3:
                raise OSError(28, "No space left on device")
            return x

    with pytest.raises(OSError):
        denoise_files._denoise_file(Breaks(), denoise_files.Job("in.tif", "out.tif", "c.tif"), 2**32, None, None, False)
    assert os.listdir() == ["in.tif"]


def test_warning_of_spots(shifting_snapshot, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = np.full([100, 70, 3], 128, np.uint8)
    Image.fromarray(pixels).save("in.png")
    words = ["infer-image", "--image", "in.png", "--out", "out.png", "--network-snapshot", shifting_snapshot]
    config.main(words)
    warning = (
        "warning: in.png: denoising changed the mean colour of the 32x32 pixels at column 0, row 0 by 0.20 of the "
    )
    assert capsys.readouterr().err.startswith(warning)
    config.main([*words, "--noise", "text"])
    assert not capsys.readouterr().err
