"""Images as 8-bit RGB: refusals and notes, also in the dataset tool and in validation."""

import os

import numpy as np
import pytest
import tifffile
from conftest import Identity
from PIL import Image

import corruption
import dataset_tool_tf
import validation
from imaging import images, rgb_files
from records import tfrecords

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, [12, 20, 5], dtype=np.uint16)
BYTES = DEEP.astype(np.uint8)
RGB = {"photometric": "rgb", "planarconfig": "contig"}
REFUSED = {
    "float": (RNG.random([12, 20, 3], np.float32), RGB, "floating-point samples"),
    "signed": (DEEP[..., 0].astype(np.int16), {}, "samples of type int16"),
    "twelve bits": (
        DEEP[..., 0] >> 4,
        {},
        "its samples reach from .* to 40.*, but black is taken for 0 and white for 65535",
    ),
    "pages": (
        BYTES[..., :2].transpose(2, 0, 1),
        {"photometric": "minisblack"},
        "a stack of 2 pages; dataset_tool_tf.py takes them by --frames scenes or --frames shots",
    ),
    "unmarked": (BYTES[..., :4], RGB | {"extrasamples": ["unspecified"]}, "4 channels"),
    "channels": (BYTES, RGB, "5 channels"),
    "CMYK": (DEEP[..., :4], {"photometric": "separated"}, "SEPARATED of 16 bits"),
}


@pytest.fixture
def kinds(tmp_path, monkeypatch):
    """A folder with an image of each refused kind, and three others."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("kinds")
    for name, (samples, options, _) in REFUSED.items():
        tifffile.imwrite(f"kinds/{name}.tif", samples, **options)
    tifffile.imwrite("kinds/deep.tif", DEEP[..., :3], **RGB)
    tifffile.imwrite("kinds/turned.tif", BYTES[..., :3], **RGB, extratags=[(0x0112, 3, 1, 6, True)])
    Image.fromarray(BYTES[..., :3]).save("kinds/plain.png")
    return "kinds"


def test_read_rgb_refuses_by_name(kinds):
    for name, (_, _, message) in REFUSED.items():
        with pytest.raises(images.Refused, match=rf"^kinds/{name}\.tif: {message}"):
            rgb_files.read_rgb(f"kinds/{name}.tif")


def test_deep_colour_is_scaled_with_a_note(kinds):
    notes = []
    pixels = rgb_files.read_rgb("kinds/deep.tif", notes.append)
    assert np.array_equal(pixels, np.rint(DEEP[..., :3] / 65535 * 255).transpose(2, 0, 1))
    assert notes == ["kinds/deep.tif: its 16 bits a channel become 8"]
    assert rgb_files.read_header("kinds/deep.tif") == ("RGB;16", (20, 12))
    assert rgb_files.read_header("kinds/turned.tif") == ("RGB", (12, 20))
    assert np.array_equal(rgb_files.read_rgb("kinds/turned.tif"), np.rot90(BYTES[..., :3], -1).transpose(2, 0, 1))


def test_dataset_tool_lists_refused_files(call, kinds):
    done = call(dataset_tool_tf.main, "--input-dir", kinds, "--out", "a.tfrecords")
    assert done.stdout.splitlines()[-1] == f"  Refused: {len(REFUSED)} files" and "Not decodable" not in done.stdout
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    assert sorted(line.split(".tif: ")[0] for line in skipped) == sorted(f"skipped: kinds/{name}" for name in REFUSED)
    assert len(tfrecords.ImageRecords("a.tfrecords")) == 3


def test_validation_leaves_out_refused_files(kinds, capsys):
    validation_set = validation.ValidationSet(
        kinds, corruption.create("gaussian", train_sigma=(0, 50), sigma=25), seed=1
    )
    for _ in range(2):
        results = [result.name for result in validation_set.evaluate(Identity())]
        assert results == ["deep.tif", "float.tif", "plain.png", "turned.tif"]
    out, err = capsys.readouterr()
    for name in REFUSED:
        assert (f"warning: left out: kinds/{name}.tif: " in out) == (name != "float")  # It is measured as it is.
    assert err == ""
