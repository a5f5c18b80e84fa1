"""The dataset tool, run as a user runs it."""

import os

import numpy as np
import pytest
from PIL import Image

import dataset_tool_tf
import dead_leaves
import images
import tfrecords

RGB = np.random.default_rng(0).integers(0, 256, [30, 40, 3], dtype=np.uint8)


def save(path, image, **options):
    """Saves an array or a Pillow image."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)


@pytest.fixture
def mixed(tmp_path):
    """A folder of images of many kinds, damaged ones and files that are none."""
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


def test_a_folder_of_all_kinds(command, mixed, tmp_path):
    done = command("dataset_tool_tf.py", "--input-dir", mixed, "--out=train.tfrecords")  # In the current folder.
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
        assert np.array_equal(records.read(index), images.read_rgb(name))
    assert records.shape(names.index(str(mixed / "i.png"))) == (3, 40, 30)  # Turned upright.


def test_dead_leaves(command, tmp_path):
    done = command("dataset_tool_tf.py", "--dead-leaves=8", "--seed=7", "--size=64", "--out=new/a.tfrecords")
    assert done.returncode == 0, done.stderr
    records = tfrecords.ImageRecords(tmp_path / "new" / "a.tfrecords")
    for k in range(8):
        assert np.array_equal(records.read(k), dead_leaves.dead_leaves(64, 64, np.random.default_rng((7, k))))
    statistics = ["  Formats:", "    RGB: 8 images", "  width,height buckets:", "    >= 256x256: 0 images"]
    assert done.stdout.splitlines()[-6:] == ["Dataset statistics:", *statistics, "    < 256x256: 8 images"]


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
def test_mistakes_end_in_one_line_and_no_output(command, tmp_path, args, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "broken" / name).write_bytes(b"no image")
    done = command("dataset_tool_tf.py", *args)
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
    ],
)
def test_usage_errors(monkeypatch, capsys, args):
    monkeypatch.setattr("sys.argv", ["dataset_tool_tf.py", *args])
    with pytest.raises(SystemExit) as exit_:
        dataset_tool_tf.main()
    assert exit_.value.code == 2 and "error:" in capsys.readouterr().err


def test_pixels_in_flight_are_bounded_and_in_order(monkeypatch, tmp_path):
    paths = []
    for k, side in enumerate([10, 30, 10, 10, 90, 10, 10, 10]):  # One of them larger than the bound.
        paths.append(str(tmp_path / f"{k}.png"))
        save(paths[-1], np.full([side, side, 3], k, np.uint8))
    asked, taken, most = [], [], 0
    original = dataset_tool_tf._read_or_error
    monkeypatch.setattr(dataset_tool_tf, "_read_or_error", lambda path: asked.append(path) or original(path))
    monkeypatch.setattr(dataset_tool_tf, "_MAX_PIXELS", 1200)
    for path, mode, pixels in dataset_tool_tf._decode_ahead(paths):
        pixels_ahead = sum(images.read_rgb(p)[0].size for p in list(asked) if p not in taken)
        assert pixels_ahead <= 1200 or pixels_ahead == 90 * 90
        most = max(most, pixels_ahead)
        taken.append(path)
        assert mode == "RGB" and pixels[0, 0, 0] == int(os.path.basename(path)[0])
    assert taken == paths and most > 900


def test_verify_names_every_damaged_record(command, training_file, tmp_path):
    done = command("dataset_tool_tf.py", "--verify", training_file)
    assert done.returncode == 0 and done.stdout == f"{training_file}: 4 images, all whole\n"
    data = bytearray(open(training_file, "rb").read())
    data[1000] ^= 1
    data[-1000] ^= 1
    (tmp_path / "bad.tfrecords").write_bytes(data)
    done = command("dataset_tool_tf.py", "--verify", "bad.tfrecords")
    assert done.returncode == 1
    damaged = [f"damaged: bad.tfrecords: record {k} is damaged: its checksum is wrong" for k in (0, 3)]
    assert done.stderr.splitlines() == [*damaged, "error: bad.tfrecords: 2 of 4 records are damaged; make it anew"]
