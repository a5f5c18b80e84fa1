"""TFRecords files: those of the original, our own, and foreign or damaged ones."""

import concurrent.futures
import os

import numpy as np
import pytest
from conftest import GOLDEN_DIR, example, record

import dnnlib
from imaging.scale import Scale
from records import tfrecords

IMAGES = [np.random.default_rng(k).integers(0, 256, [3, 9 + k, 14], dtype=np.uint8) for k in range(3)]


def varint(number):
    """Return a number as protobuf writes it."""
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a file of IMAGES."""
    path = tmp_path_factory.mktemp("records") / "good.tfrecords"
    assert tfrecords.write_images(path, iter(IMAGES)) == 3
    return path.read_bytes()


@pytest.fixture
def write(tmp_path):
    """Write bytes to a file; returns its path."""

    def to_file(data):
        path = tmp_path / "file.tfrecords"
        path.write_bytes(data)
        return str(path)

    return to_file


def test_original_file():
    records = tfrecords.ImageRecords(os.path.join(GOLDEN_DIR, "golden.tfrecords"))
    golden = np.load(os.path.join(GOLDEN_DIR, "golden_tfrecords.npz"))
    assert len(records) == len(golden.files)
    for index, name in enumerate(sorted(golden.files)):
        assert records.shape(index) == golden[name].shape
        assert np.array_equal(records.read(index), golden[name])


@pytest.mark.parametrize(
    "y, x, height, width", [(0, 0, 260, 300), (3, 7, 256, 256), (259, 299, 1, 1), (0, 44, 256, 256)]
)
def test_crop_is_a_slice(y, x, height, width):
    records = tfrecords.ImageRecords(os.path.join(GOLDEN_DIR, "golden.tfrecords"))
    whole = np.load(os.path.join(GOLDEN_DIR, "golden_tfrecords.npz"))["img02"]
    assert np.array_equal(records.crop(2, y, x, height, width), whole[:, y : y + height, x : x + width])


def test_round_trip(good, write):
    records = tfrecords.ImageRecords(write(good))
    assert [records.read(k).tobytes() for k in range(3)] == [a.tobytes() for a in IMAGES]


def test_tensorflow_reads_our_file(good, write):
    from dnnlib.tflib import tf

    payloads = list(tf.io.tf_record_iterator(write(good)))  # Checks the checksums.
    assert len(payloads) == 3
    for payload, pixels in zip(payloads, IMAGES):
        features = tf.train.Example.FromString(payload).features.feature
        assert set(features) == {"shape", "data"}  # As published.
        assert tuple(features["shape"].int64_list.value) == pixels.shape
        assert features["data"].bytes_list.value[0] == pixels.tobytes()


def test_shots_form_scenes(tmp_path, good, write):
    path = str(tmp_path / "shots.tfrecords")
    shots = [(IMAGES[scene] + shot, scene) for scene, count in enumerate([2, 4, 3]) for shot in range(count)]
    assert tfrecords.write_shots(path, shots) == 9
    records = tfrecords.ImageRecords(path)
    assert records.scenes().tolist() == [[0, 2], [2, 4], [6, 3]]
    for k, (pixels, _) in enumerate(shots):
        assert np.array_equal(records.read(k), pixels)
    assert tfrecords.ImageRecords(write(good)).scenes().tolist() == [[0, 1], [1, 1], [2, 1]]


@pytest.mark.parametrize("scale", [Scale("uint16", 0, 4095), Scale("float32", -1.5, 2), Scale("uint8", 16, 235)])
def test_types_and_ranges(tmp_path, scale):
    path = str(tmp_path / "deep.tfrecords")
    stored = [(image * np.float32(1.75)).astype(scale.dtype) - (scale.dtype == "float32") for image in IMAGES]
    tfrecords.write_images(path, stored, scale)
    records = tfrecords.ImageRecords(path)
    records.check()
    assert records.scale() == scale
    for k, samples in enumerate(stored):
        assert records.read(k).dtype == scale.dtype and np.array_equal(records.read(k), samples)
        assert np.array_equal(records.crop(k, 2, 3, 5, 7), samples[:, 2:7, 3:10])


@pytest.mark.parametrize(
    "features,message",
    [
        ({"type": b"uint16"}, r"12 bytes of pixels for shape \(3, 2, 2\)"),
        ({"type": b"int64", "data": bytes(96)}, "samples of type int64"),
        ({"range": [3.0, 3.0]}, r"with black and white \(3.0, 3.0\)"),
        ({"range": [float("nan"), 3.0]}, "with black and white"),
        ({"range": [3.0]}, "not a tf.train.Example"),
        (
            {"type": b"uint16", "data": bytes(24)},
            "has samples of uint16, 0 is black and 65535 white, in a file of uint8",
        ),
    ],
)
def test_other_types_are_refused(write, features, message):
    first = record(example(shape=[3, 2, 2], data=bytes(12)))
    second = example(**{"shape": [3, 2, 2], "data": bytes(12)} | features)
    with pytest.raises(dnnlib.UserError, match=f"record 1 .*{message}|record 1 {message}"):
        tfrecords.ImageRecords(write(first + record(second))).check()


@pytest.mark.parametrize(
    "shots, message",
    [
        ([(0, 0), (0, 0), (1, 1)], "record 2 is the only shot of its scene"),
        ([(0, 0), (0, 0), (1, 2), (2, 2)], r"record 3 has the shape \(3, 11, 14\), the shot before it \(3, 10, 14\)"),
        ([(0, 0), (0, 0), (1, None)], "record 2 is a single image in a file of shots"),
    ],
)
def test_invalid_scenes_are_refused(tmp_path, shots, message):
    path = str(tmp_path / "shots.tfrecords")
    tfrecords.write_shots(path, [(IMAGES[image], scene) for image, scene in shots])
    with pytest.raises(dnnlib.UserError, match=rf"shots\.tfrecords: {message}"):
        tfrecords.ImageRecords(path).scenes()


def test_views_are_written_in_order(tmp_path):
    rows_last = np.ascontiguousarray(IMAGES[0].transpose(1, 2, 0)).transpose(2, 0, 1)
    tfrecords.write_images(tmp_path / "a.tfrecords", [rows_last])
    assert np.array_equal(tfrecords.ImageRecords(tmp_path / "a.tfrecords").read(0), IMAGES[0])


def test_failed_write_keeps_old_file(tmp_path):
    def failing():
        yield IMAGES[0]
        raise dnnlib.UserError("enough")

    path = tmp_path / "a.tfrecords"
    path.write_bytes(b"old")
    with pytest.raises(dnnlib.UserError, match="enough"):
        tfrecords.write_images(path, failing())
    assert os.listdir(tmp_path) == ["a.tfrecords"] and path.read_bytes() == b"old"


def test_damaged_pixels_are_named(good, write):
    second = len(record(example(shape=IMAGES[0].shape, data=IMAGES[0].tobytes())))
    damaged = bytearray(good)
    damaged[second + 200] ^= 1
    records = tfrecords.ImageRecords(write(damaged))
    with pytest.raises(dnnlib.UserError, match=r"file\.tfrecords: record 1 .*checksum"):
        records.read(1)
    assert np.array_equal(records.read(0), IMAGES[0]) and np.array_equal(records.read(2), IMAGES[2])


def test_damaged_length_is_named(good, write):
    second = len(record(example(shape=IMAGES[0].shape, data=IMAGES[0].tobytes())))
    damaged = bytearray(good)
    damaged[second + 1] ^= 1
    with pytest.raises(dnnlib.UserError, match="record 1 has a damaged length"):
        tfrecords.ImageRecords(write(damaged))


@pytest.mark.parametrize(
    "kept, message", [(-1, "record 2 is cut short"), (-300, "record 2 is cut short"), (5, "record 0")]
)
def test_truncated_file(good, write, kept, message):
    with pytest.raises(dnnlib.UserError, match=message):
        tfrecords.ImageRecords(write(good[:kept]))


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_file_shrinks_while_read(good, write, system, monkeypatch):
    if system == "nt":
        monkeypatch.delattr(os, "pread", raising=False)
    path = write(good)
    records = tfrecords.ImageRecords(path)
    os.truncate(path, len(good) - 100)
    with pytest.raises(dnnlib.UserError, match="cut short"):
        records.read(2)


@pytest.mark.parametrize(
    "data, message", [(b"", "no records"), (b"\x89PNG" * 99, "not a TFRecords"), (b"PK", "record 0")]
)
def test_foreign_file_is_refused(write, data, message):
    with pytest.raises(dnnlib.UserError, match=rf"file\.tfrecords: .*{message}"):
        tfrecords.ImageRecords(write(data))


def test_threads_read_without_pread(good, write, monkeypatch):
    monkeypatch.delattr(os, "pread", raising=False)
    records = tfrecords.ImageRecords(write(good))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for index, image in zip([0, 1, 2] * 100, pool.map(records.read, [0, 1, 2] * 100)):
            assert np.array_equal(image, IMAGES[index])


def test_missing_file(tmp_path):
    with pytest.raises(dnnlib.UserError, match=r"none\.tfrecords.*dataset_tool_tf"):
        tfrecords.ImageRecords(str(tmp_path / "none.tfrecords"))
    with pytest.raises(dnnlib.UserError, match=f"{tmp_path}: not a file"):
        tfrecords.ImageRecords(str(tmp_path))


@pytest.mark.parametrize(
    "features, message",
    [
        ({"image": b"abc"}, "lacks the feature"),
        ({"shape": [3, 2, 2]}, "lacks the feature"),
        ({"shape": [3, 2, 2], "data": bytes(11)}, "11 bytes of pixels"),
        ({"shape": [2, 2, 3], "data": bytes(12)}, r"not \(3, H, W\)"),
        ({"shape": [3, -2, -2], "data": bytes(12)}, r"not \(3, H, W\)"),
        ({"shape": [12], "data": bytes(12)}, r"not \(3, H, W\)"),
        ({"shape": b"3", "data": bytes(12)}, "record 1"),
        ({"shape": [3, 2, 2], "data": [1]}, "record 1"),
        ({"shape": [3, 1, 1], "data": [1, 2, 3]}, "lacks the feature"),  # Packed, these numbers look like 3 bytes.
    ],
)
def test_foreign_records_are_refused(good, write, features, message):
    first = record(example(shape=IMAGES[0].shape, data=IMAGES[0].tobytes()))
    records = tfrecords.ImageRecords(write(first + record(example(**features))))
    with pytest.raises(dnnlib.UserError, match=f"record 1.*{message}|{message}"):
        records.check()
    with pytest.raises(dnnlib.UserError, match=f"record 1.*{message}|{message}"):
        records.read(1)


def test_other_features_are_ignored(write):
    payload = example(shape=[3, 2, 2], data=bytes(12), label=[7], empty=[], name=b"x" * 100)
    assert tfrecords.ImageRecords(write(record(payload))).read(0).shape == (3, 2, 2)


def test_endless_fields_are_refused(write):
    entries = b"\x0a\x00" * 500_000
    payload = b"\x0a" + varint(len(entries)) + entries
    for endless in (payload, entries, payload * 2):
        with pytest.raises(dnnlib.UserError, match="record 0"):
            tfrecords.ImageRecords(write(record(endless))).check()


@pytest.mark.parametrize("payload", [b"", b"hello", b"\xff" * 30, b"\x0a\xff\xff\xff\xff\x7f", bytes(64)])
def test_non_protobuf_records_are_refused(write, payload):
    with pytest.raises(dnnlib.UserError, match="record 0"):
        tfrecords.ImageRecords(write(record(payload))).read(0)
