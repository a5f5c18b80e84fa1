"""The dataset tool for TFRecords files."""

import os
import re
import shutil

import numpy as np
import pytest
import tifffile
from conftest import textured_image
from PIL import Image

import dataset_tool_tf
from imaging import rgb_files
from imaging.scale import EIGHT_BITS, Scale
from records import dead_leaves, decoding, tfrecords

RGB = np.random.default_rng(0).integers(0, 256, [30, 40, 3], dtype=np.uint8)


def save(path, image, **options):
    """Save an array or a Pillow image."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)


@pytest.fixture
def mixed(tmp_path):
    """A folder of images of many kinds, damaged images and other files."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "a.JPEG", RGB, quality=95)
    save(folder / "b.PNG", RGB)
    save(folder / "c.bmp", RGB)
    save(folder / "d.jpeg", RGB[..., 0])
    save(folder / "e.jpg", Image.fromarray(RGB).convert("CMYK"))
    save(folder / "f.png", (np.arange(1200).reshape(30, 40) * 50).astype(np.uint16))
    save(folder / "g.png", np.zeros([256, 256, 3], np.uint8))
    save(folder / "h.png", np.zeros([255, 300, 3], np.uint8))
    save(folder / "i.png", RGB, exif=exif)
    (folder / "j.png").write_bytes((folder / "g.png").read_bytes()[:90])
    (folder / "k.jpg").write_bytes(b"no image")
    (folder / "notes.txt").touch()
    (folder / "folder").mkdir()
    return folder


def test_mixed_folder(call, mixed, tmp_path):
    done = call(dataset_tool_tf.main, "--input-dir", mixed, "--out=train.tfrecords")  # In the current folder.
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[9:12] == ["Dataset statistics:", "  Formats:", "    RGB: 6 images"]
    assert sorted(lines[12:15]) == ["    CMYK: 1 images", "    I;16: 1 images", "    L: 1 images"]
    assert lines[15:17] == ["  width,height buckets:", "    >= 256x256: 1 images"]
    assert lines[17:] == ["    < 256x256: 8 images", "  Not decodable: 2 files"]
    assert "2 other files or folders" in done.stderr
    assert "j.png" in done.stderr and "k.jpg" in done.stderr and "Traceback" not in done.stderr

    records = tfrecords.ImageRecords(tmp_path / "train.tfrecords")
    assert len(records) == 9
    names = [str(mixed / name) for name in sorted(os.listdir(mixed)) if name[0] in "abcdefghijk" and "." in name]
    np.random.RandomState(0x1234F00D).shuffle(names)
    names = [name for name in names if not name.endswith(("j.png", "k.jpg"))]
    assert lines[:9] == [f"{index} {name}" for index, name in enumerate(names)]
    for index, name in enumerate(names):
        assert np.array_equal(records.read(index), rgb_files.read_rgb(name))
    assert records.shape(names.index(str(mixed / "i.png"))) == (3, 40, 30)  # Turned upright.

    done = call(dataset_tool_tf.main, "--input-dir", mixed, "--channels", 1, "--out=grey.tfrecords")
    assert done.returncode == 0, done.stderr
    grey = tfrecords.ImageRecords(tmp_path / "grey.tfrecords")
    for index in range(9):
        colour = Image.fromarray(records.read(index).transpose(1, 2, 0))
        assert np.array_equal(grey.read(index), np.asarray(colour.convert("L"))[None])


def test_dead_leaves(call, tmp_path):
    done = call(dataset_tool_tf.main, "--dead-leaves=3", "--seed=7", "--size=64", "--out=new/a.tfrecords")
    assert done.returncode == 0, done.stderr
    records = tfrecords.ImageRecords(tmp_path / "new" / "a.tfrecords")
    for k in range(3):
        assert np.array_equal(records.read(k), dead_leaves.dead_leaves(64, 64, np.random.default_rng((7, k))))
    statistics = ["  Formats:", "    RGB: 3 images", "  width,height buckets:", "    >= 256x256: 0 images"]
    assert done.stdout.splitlines()[-6:] == ["Dataset statistics:", *statistics, "    < 256x256: 3 images"]


def test_shots_by_random_cameras(call, tmp_path):
    (tmp_path / "clean").mkdir()
    for k in range(2):
        pixels = textured_image(80, 96, seed=k).clip(0, 255).astype(np.uint8)
        save(tmp_path / "clean" / f"{k}.png", pixels.transpose(1, 2, 0))
    words = ["--input-dir", "clean", "--camera-shots", 3]
    for name, seed in ("a", 1), ("b", 1), ("c", 2):
        done = call(dataset_tool_tf.main, *words, "--seed", seed, "--out", name)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()
    records = tfrecords.ImageRecords(tmp_path / "a")
    assert records.scenes().tolist() == [[0, 3], [3, 3]]
    for first in 0, 3:
        shots = np.array([records.read(first + k) for k in range(3)], float)
        scene, noise = shots.mean(axis=0), shots[1:] - shots[0]
        # Of independent noise, half of the variance of each difference is that of the first shot.
        assert np.corrcoef(noise.reshape(2, -1))[0, 1] == pytest.approx(0.5, abs=0.1)
        assert 0.3 < noise.std() < scene.std()


@pytest.mark.parametrize(
    "args, message",
    [
        (["--input-dir", "none", "--out", "o"], "none: no such folder"),
        (["--input-dir", "empty", "--out", "o"], "empty: has no images"),
        (["--input-dir", ".", "--out", "o"], ".: has no images"),
        (["--input-dir", "broken", "--out", "o"], "none of its 2 images could be decoded"),
        (["--input-dir", "broken", "--out", "empty"], "empty: is a folder"),
        (["--input-dir", "broken", "--out", "broken/a.png/o"], "broken/a.png is not a folder"),
    ],
)
def test_mistakes_end_in_one_line(call, tmp_path, args, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "broken" / name).write_bytes(b"no image")
    done = call(dataset_tool_tf.main, *args)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["broken", "empty"]
    assert "statistics" not in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        ["--out", "o"],
        ["--out", "o", "--input-dir", "a", "--dead-leaves", "3"],
        ["--out", "o", "--input-dir", "a", "--seed", "3"],
        ["--out", "o", "--dead-leaves", "0"],
        ["--out", "o", "--dead-leaves", "3", "--size", "8"],
        ["--out", "", "--dead-leaves", "3"],
        ["--dead-leaves", "3"],
        ["--out", "o", "--pairs", "a", "b", "--frames", "shots"],
        ["--out", "o", "--input-dir", "a", "--align"],
        ["--out", "o", "--input-dir", "a", "--camera-shots", "1"],
        ["--out", "o", "--input-dir", "a", "--camera-shots", "2", "--channels", "1"],
        ["--out", "o", "--bursts", "a", "--camera-shots", "2"],
    ],
)
def test_usage_errors(call, args):
    done = call(dataset_tool_tf.main, *args)
    assert done.returncode == 2 and "error:" in done.stderr


def test_decoding_ahead_is_bounded(monkeypatch, tmp_path):
    paths = []
    for k, side in enumerate([10, 30, 10, 10, 90, 10, 10, 10]):  # One image is larger than the bound.
        paths.append(str(tmp_path / f"{k}.png"))
        save(paths[-1], np.full([side, side, 3], k, np.uint8))
    asked, taken, most = [], [], 0
    original = decoding._decode
    monkeypatch.setattr(decoding, "_decode", lambda path, *args: asked.append(path) or original(path, *args))
    monkeypatch.setattr(decoding, "_MAX_PIXELS", 1200)
    for path, mode, pixels in decoding.decode_ahead(paths, rgb_files.read_rgb):
        pixels_ahead = sum(rgb_files.read_rgb(p)[0].size for p in list(asked) if p not in taken)
        assert pixels_ahead <= 1200 or pixels_ahead == 90 * 90
        most = max(most, pixels_ahead)
        taken.append(path)
        assert mode == "RGB" and pixels[0, 0, 0] == int(os.path.basename(path)[0])
    assert taken == paths and most > 900


def test_verify_names_damaged_records(call, training_file, tmp_path):
    done = call(dataset_tool_tf.main, "--verify", training_file)
    assert done.returncode == 0 and done.stdout == f"{training_file}: 4 images, all whole\n"
    data = bytearray(open(training_file, "rb").read())
    data[1000] ^= 1
    data[-1000] ^= 1
    (tmp_path / "bad.tfrecords").write_bytes(data)
    done = call(dataset_tool_tf.main, "--verify", "bad.tfrecords")
    assert done.returncode == 1
    damaged = [f"damaged: bad.tfrecords: record {k} is damaged: its checksum is wrong" for k in (0, 3)]
    assert done.stderr.splitlines() == [
        *damaged,
        "error: bad.tfrecords: 2 of 4 records are damaged; write it again",
    ]


def test_pairs_become_scenes(call, tmp_path):
    rng = np.random.default_rng(0)
    for folder, suffix, (top, left) in [("a", "png", (0, 0)), ("b", "bmp", (3, -4))]:
        (tmp_path / folder).mkdir()
        for scene in range(4):
            y, x = (20 + top, 20 + left) if scene == 0 else (20, 20)  # b/photo0 is shifted 3 up, 4 right.
            content = textured_image(280, 300, seed=scene)[:, y : y + 240, x : x + 260]
            noisy = (content + rng.normal(0, 20, content.shape)).clip(0, 255).astype(np.uint8)
            save(tmp_path / folder / f"photo{scene}.{suffix}", noisy.transpose(1, 2, 0))
    (tmp_path / "a" / "photo1.cr2").touch()
    done = call(dataset_tool_tf.main, "--pairs", "a", "b", "--out", "pairs.tfrecords")
    assert done.returncode == 0, done.stderr
    told, shifted, warning = done.stderr.splitlines()
    assert told.startswith("a: passed over 1 other files or folders, e.g. photo1.cr2")
    down, right = map(float, re.fullmatch(r"shifted: b/photo0\.bmp: (\S+) down, (\S+) right of a/.*", shifted).groups())
    assert down == pytest.approx(-3, abs=0.3) and right == pytest.approx(4, abs=0.3)
    assert warning == "warning: shifted shots teach a network to blur; use --align, or remove them"

    files = [f"a/photo{k}.png b/photo{k}.bmp".split() for k in range(4)]
    lines = done.stdout.splitlines()
    assert lines[:8] == [f"{index} {file}" for index, file in enumerate(f for pair in files for f in pair)]
    assert lines[-3:] == [
        "  Scenes: 4",
        "  Shifted by 0.5 pixels or more: 1 shots",
        "  Too flat, noisy or small to tell: 0 shots",
    ]
    records = tfrecords.ImageRecords(tmp_path / "pairs.tfrecords")
    assert records.scenes().tolist() == [[0, 2], [2, 2], [4, 2], [6, 2]]
    assert np.array_equal(records.read(5), rgb_files.read_rgb(tmp_path / "b" / "photo2.bmp"))
    done = call(dataset_tool_tf.main, "--verify", "pairs.tfrecords")
    assert done.stdout == "pairs.tfrecords: 8 noisy shots of 4 scenes, all whole\n"


def test_unusable_shots_are_left_out(call, tmp_path):
    rng = np.random.default_rng(0)
    for scene, count in {"x": 4, "y": 2, "z": 2}.items():
        (tmp_path / "shots" / scene).mkdir(parents=True)
        for shot in range(count):
            save(tmp_path / "shots" / scene / f"{shot}.png", rng.integers(0, 256, [30, 40, 3], dtype=np.uint8))
    shutil.copy(tmp_path / "shots/x/0.png", tmp_path / "shots/x/2.png")
    for broken in ("shots/x/1.png", "shots/y/0.png"):
        os.truncate(tmp_path / broken, 500)
    done = call(dataset_tool_tf.main, "--bursts", "shots", "--out", "bursts.tfrecords")
    assert done.returncode == 0, done.stderr
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    assert "shots/x/1.png: cannot be decoded" in skipped[0] and "shots/y/0.png: cannot be decoded" in skipped[2]
    assert skipped[1] == "skipped: shots/x/2.png: is a copy of shots/x/0.png; their noise must differ"
    assert skipped[3] == "skipped: shots/y/1.png: no other shot of its scene can be used"
    assert done.stdout.splitlines()[:4] == ["0 shots/x/0.png", "1 shots/x/3.png", "2 shots/z/0.png", "3 shots/z/1.png"]
    tail = [
        "Scenes: 2",
        "Left out: 4 shots",
        "Shifted by 0.5 pixels or more: 0 shots",
        "Too flat, noisy or small to tell: 2 shots",
    ]
    assert [line.strip() for line in done.stdout.splitlines()[-4:]] == tail
    assert tfrecords.ImageRecords(tmp_path / "bursts.tfrecords").scenes().tolist() == [[0, 2], [2, 2]]

    shutil.rmtree(tmp_path / "shots/x")
    shutil.rmtree(tmp_path / "shots/z")
    done = call(dataset_tool_tf.main, "--bursts", "shots", "--out", "none.tfrecords")
    assert done.returncode == 1 and not (tmp_path / "none.tfrecords").exists()
    assert done.stderr.splitlines()[-1] == "error: none of the 1 scenes has two shots that can be used"


def test_sixteen_bits_and_floats_are_kept(call, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    stored = {f"{k}.tif": rng.integers(0, 4000, [30, 40, 3], dtype=np.uint16) for k in range(3)}
    for name, samples in stored.items():
        tifffile.imwrite(tmp_path / "deep" / name, samples, photometric="rgb")
    (tmp_path / "deep" / "broken.tif").write_bytes(b"II*")
    done = call(dataset_tool_tf.main, "--input-dir", "deep", "--out", "deep.tfrecords")
    assert done.returncode == 0, done.stderr
    what = "uint16, 0 is black and 4095 white: 12 bits, as no sample is above 3999; --range 0 4095"
    assert f"Samples: {what}." in done.stdout.splitlines()
    records = tfrecords.ImageRecords(tmp_path / "deep.tfrecords")
    order = [line.split("/")[1] for line in done.stdout.splitlines() if line[0].isdigit()]
    for index, name in enumerate(order):
        assert np.array_equal(records.read(index), stored[name].transpose(2, 0, 1))
    assert records.scale() == Scale("uint16", 0, 4095)

    done = call(dataset_tool_tf.main, "--input-dir", "deep", "--channels=1", "--range=auto", "--out", "auto.tfrecords")
    scale = tfrecords.ImageRecords(tmp_path / "auto.tfrecords").scale()
    grey = np.concatenate([samples @ [0.299, 0.587, 0.114] for samples in stored.values()])
    assert (scale.black, scale.white) == pytest.approx(np.percentile(grey, [0.1, 99.9]), abs=1)
    assert f"Samples: {scale}: the 0.1 and 99.9 % points." in done.stdout

    (tmp_path / "deep" / "broken.tif").unlink()
    tifffile.imwrite(tmp_path / "deep" / "float.tif", np.full([30, 40], np.nan, np.float32))
    done = call(dataset_tool_tf.main, "--input-dir", "deep", "--out", "a.tfrecords")
    assert done.stderr == "error: the files have samples of several types (float32, uint16); make a data set of each\n"
    done = call(dataset_tool_tf.main, "--input-dir", "deep/float.tif", "--range", -2, 9, "--out", "a.tfrecords")
    assert "float.tif: some of its samples are NaN, infinite or too large; replace them" in done.stderr
    save(tmp_path / "deep" / "float.tif", RGB, format="PNG")
    done = call(dataset_tool_tf.main, "--input-dir", "deep", "--out", "eight.tfrecords")
    assert done.stderr.count("but black is taken for 0 and white for 65535") == 3  # 12 bits do not become 8.
    assert tfrecords.ImageRecords(tmp_path / "eight.tfrecords").scale() == EIGHT_BITS


def test_stacks_are_scenes_or_shots(call, tmp_path):
    rng = np.random.default_rng(0)
    stack = rng.random([5, 30, 40], np.float32)
    (tmp_path / "stacks").mkdir()
    tifffile.imwrite(tmp_path / "stacks/a.tif", stack[:3], imagej=True)
    np.save(tmp_path / "stacks/b.npy", stack[3:].astype(np.float64))
    np.savez(tmp_path / "stacks/c.npz", stack[0])
    with tifffile.TiffWriter(tmp_path / "stacks/d.tif") as f:
        for page in (stack[0], stack[1, :20], stack[2]):
            f.write(page, metadata=None, contiguous=False)
    done = call(dataset_tool_tf.main, "--input-dir", "stacks", "--out", "a.tfrecords")
    wanted = "dataset_tool_tf.py takes them by --frames scenes or --frames shots"
    assert f"skipped: stacks/a.tif: a stack of 3 pages; {wanted}" in done.stderr
    assert done.stdout.splitlines()[1] == "0 stacks/c.npz" and "  Refused: 3 files" in done.stdout

    done = call(
        dataset_tool_tf.main, "--input-dir", "stacks", "--frames", "scenes", "--channels=1", "--out=b.tfrecords"
    )
    assert done.returncode == 0, done.stderr
    records = tfrecords.ImageRecords(tmp_path / "b.tfrecords")
    assert len(records) == 9 and records.scenes()[:, 1].tolist() == [1] * 9
    lines = [line for line in done.stdout.splitlines() if line[0].isdigit()]
    assert [line.split(" ", 1)[1] for line in lines if "b.npy" in line] == [
        f"stacks/b.npy, page {page} of 2" for page in (1, 2)
    ]
    for index, line in enumerate(lines):
        if "b.npy" in line:
            np.testing.assert_array_equal(records.read(index)[0], stack[3 if "page 1" in line else 4])

    done = call(dataset_tool_tf.main, "--input-dir", "stacks", "--frames", "shots", "--channels=1", "--out=c.tfrecords")
    assert done.returncode == 0, done.stderr
    assert "skipped: stacks/c.npz: no other shot of its scene can be used" in done.stderr
    assert "skipped: stacks/d.tif, page 2 of 3: differs in size from stacks/d.tif, page 1 of 3" in done.stderr
    shots = tfrecords.ImageRecords(tmp_path / "c.tfrecords").scenes()[:, 1].tolist()
    assert sorted(shots) == [2, 2, 3]


def test_shots_are_aligned(call, tmp_path):
    rng, offsets = np.random.default_rng(0), [(0, 0), (3, -4), (-2, 1), (0, 0)]
    content = textured_image(240, 260, seed=0).mean(axis=0) * 10
    frames = [content[20 + y : 220 + y, 20 + x : 240 + x] + rng.normal(0, 100, [200, 220]) for y, x in offsets]
    tifffile.imwrite(tmp_path / "drift.tif", np.clip(frames, 0, 4095).astype(np.uint16), imagej=True)
    args = ["--input-dir", "drift.tif", "--frames", "shots", "--channels", 1, "--out", "drift.tfrecords"]
    done = call(dataset_tool_tf.main, *args)
    assert "  Shifted by 0.5 pixels or more: 2 shots" in done.stdout
    done = call(dataset_tool_tf.main, *args, "--align")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "aligned: the scene of drift.tif, page 1 of 4: to the 215x195 of 220x200 pixels that all shots show",
        "aligned: drift.tif, page 2 of 4: -3 down, +4 right of drift.tif, page 1 of 4",
        "aligned: drift.tif, page 3 of 4: +2 down, -1 right of drift.tif, page 1 of 4",
    ]
    assert "  Shifted by 0.5 pixels or more: 0 shots" in done.stdout
    records = tfrecords.ImageRecords(tmp_path / "drift.tfrecords")
    shots = np.stack([records.read(k)[0].astype(float) for k in range(4)])
    assert (shots - shots.mean(axis=0)).std() == pytest.approx(100 * np.sqrt(3 / 4), rel=0.05)  # Noise alone differs.


def test_mismatched_pairs_are_refused(command, tmp_path):
    for name, size in {"a/1.png": 20, "a/2.png": 20, "b/1.png": 30, "b/3.png": 20}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (size, 20)).save(tmp_path / name)
    done = command("dataset_tool_tf.py", "--pairs", "a", "b", "--out", "pairs.tfrecords")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "a/2.png: has no partner in b",
        "b/3.png: has no partner in a",
        "b/1.png: is 30x20, but a/1.png is 20x20",
        "error: a, b: 3 problems with the shots; correct them",
    ]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
