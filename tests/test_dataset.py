"""Training data: a pure function of records, settings, seed and iteration."""

import numpy as np
import pytest
from PIL import Image

import corruption
import dnnlib
from dataset import TrainingData, minibatches, turn
from dnnlib import tflib
from dnnlib.tflib import tf
from imaging import images, rgb_files
from imaging.scale import Scale
from records import tfrecords

GAUSSIAN = corruption.create("gaussian")


def draw(path, start, stop, seed=5, noise2noise=True, crop_size=32, minibatch_size=3, noise=GAUSSIAN, channels=3):
    """Return the minibatches of iterations start..stop-1: a list of (noisy, target, weight, clean)."""
    pairs = isinstance(noise, corruption.RecordedNoise)
    data = TrainingData(path, crop_size, seed, pairs, channels=channels)
    with tf.Graph().as_default(), tflib.create_session() as session, data.errors_named():
        batches = minibatches(data, noise, noise2noise, minibatch_size, start, stop)
        iterator = tf.data.make_initializable_iterator(batches)
        session.run(iterator.initializer)
        following = iterator.get_next()
        return [session.run(following) for _ in range(start, stop)]


@pytest.mark.parametrize("name", ["gaussian", "text"])  # Drawn by TensorFlow, and by NumPy.
def test_minibatches_are_pure(training_file, name):
    noise = corruption.create(name)
    run, resumed = draw(training_file, 0, 6, noise=noise), draw(training_file, 4, 6, noise=noise)
    for a, b in zip(run[4:], resumed):
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)
    elements = [TrainingData(training_file, 32, seed).element(0) for seed in (5, 6)]
    assert not np.array_equal(*(seeds for _, seeds in elements))  # The training seed decides the noise seeds.


def test_input_and_target_are_independent(training_file):
    noisy, target, _, clean = (np.concatenate(x) for x in zip(*draw(training_file, 0, 40)))
    a, b = (noisy - clean), (target - clean)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.01
    strengths = a.std(axis=(1, 2, 3)), b.std(axis=(1, 2, 3))
    assert abs(np.corrcoef(*strengths)[0, 1]) < 0.4  # 120 pairs.
    assert strengths[0].min() < 10 / 255 and strengths[0].max() > 40 / 255
    assert noisy.min() < -0.5  # Not clipped.


def test_noise2clean_targets_are_clean(training_file):
    noise = corruption.create("bernoulli")
    noisy, target, weight, clean = draw(training_file, 0, 1, noise2noise=False, noise=noise)[0]
    np.testing.assert_array_equal(target, clean)
    np.testing.assert_array_equal(weight, np.ones([3, 1, 1, 1]))  # All pixels of a clean target count.
    assert noisy.shape == (3, 3, 32, 32) and not np.array_equal(noisy, clean)


def test_weights_mask_the_target(training_file):
    noise = corruption.create("bernoulli", train_p=(0.5, 0.5))
    noisy, target, weight, _ = draw(training_file, 0, 1, noise=noise)[0]
    assert weight.shape == (3, 1, 32, 32)
    missing = np.broadcast_to(weight == 0, target.shape)
    assert (target[missing] == -0.5).all() and (noisy[missing] > -0.5).any()


def test_epochs_are_permutations(tmp_path):
    path = str(tmp_path / "marked.tfrecords")  # All pixels of record k are k.
    tfrecords.write_images(path, (np.full([3, 40, 40], k, np.uint8) for k in range(10)))
    data = TrainingData(path, 32, seed=1)
    orders = [[data.element(n)[0][0, 0, 0, 0] for n in range(10 * e, 10 * e + 10)] for e in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_crops_cover_the_image(tmp_path):
    path = str(tmp_path / "ramp.tfrecords")
    y, x = np.mgrid[:40, :50]
    tfrecords.write_images(path, [np.stack([y, x, y * 0]).astype(np.uint8)])
    data = TrainingData(path, 32, seed=1)
    corners = set()
    for n in range(400):
        (crop,), _ = data.element(n)
        top, left = crop[:2, 0, 0]
        np.testing.assert_array_equal(crop[:2], np.stack([y, x])[:, top : top + 32, left : left + 32])
        corners.add((int(top), int(left)))
    assert {c[0] for c in corners} == set(range(9)) and {c[1] for c in corners} == set(range(19))


@pytest.mark.parametrize("height,width", [(20, 200), (200, 20), (10, 10), (1, 5)])
def test_small_images_are_enlarged(tmp_path, height, width):
    path = str(tmp_path / "small.tfrecords")
    board = np.indices([height, width]).sum(axis=0) // 5 % 2 * 255  # Bicubic filters overshoot at its edges.
    tfrecords.write_images(path, [np.stack([board] * 3).astype(np.uint8)])
    noise = corruption.create("poisson", train_lambda=(5.0, 5.0))
    (noisy, _, _, clean), *_ = draw(path, 0, 1, crop_size=64, noise=noise)
    assert clean.shape == (3, 3, 64, 64)
    assert clean.min() >= -0.5 and clean.max() <= 0.5 and np.isfinite(noisy).all()
    if min(height, width) == 20:  # Squares stay squares: as many edges along x as along y.
        edges = [np.abs(np.diff(clean, axis=axis)).sum() for axis in (2, 3)]
        assert edges[0] == pytest.approx(edges[1], rel=0.2)


@pytest.mark.parametrize("name", ["gaussian", "poisson"])
def test_depth_changes_no_minibatch(tmp_path, photos, training_file, name):
    """8 bits stored in 16, or as floats of another range, give the same crops and noise; small images included."""
    pixels = [rgb_files.read_rgb(path) for path in images.list_images(photos)]
    kinds = {
        Scale("uint16", 0, 65535): [x * np.uint16(257) for x in pixels],
        Scale("float32", -100, 410): [x * np.float32(2) - 100 for x in pixels],
    }
    noise, clean_only = corruption.create(name), slice(3, None)
    expected = draw(training_file, 0, 4, noise=noise)
    for scale, samples in kinds.items():
        path = str(tmp_path / f"{scale.dtype}.tfrecords")
        tfrecords.write_images(path, samples, scale)
        for a, b in zip(expected, draw(path, 0, 4, noise=noise)):
            for x, y in zip(a, b):
                np.testing.assert_allclose(x, y, atol=1e-6)
        small, large = (draw(file, 0, 4, noise=noise, crop_size=64) for file in (training_file, path))
        for a, b in zip(small, large):  # Bicubic on bytes rounds twice.
            np.testing.assert_allclose(a[clean_only], b[clean_only], atol=1.5 / 255)


def test_damaged_record_is_named(tmp_path, photos):
    path = str(tmp_path / "damaged.tfrecords")
    tfrecords.write_images(path, (rgb_files.read_rgb(p) for p in images.list_images(photos)))
    with open(path, "r+b") as f:
        f.seek(5000)
        f.write(b"\xff\x00\xff")
    with pytest.raises(dnnlib.UserError, match=r"damaged\.tfrecords: record 0 .*checksum"):
        draw(path, 0, 4)


@pytest.mark.parametrize("channels,message", [(2, "1600 bytes of pixels for shape"), (1, "the shape")])
def test_non_image_record_is_named_early(tmp_path, channels, message):
    path = str(tmp_path / "mixed.tfrecords")
    tfrecords.write_images(path, [np.zeros([3, 40, 40], np.uint8), np.zeros([channels, 40, 20], np.uint8)])
    with pytest.raises(dnnlib.UserError, match=rf"mixed\.tfrecords: record 1 has {message} \({channels}, 40"):
        TrainingData(path, 32, seed=0)


def test_grey_crops(tmp_path, photos, training_file):
    """Of a file in colour they are Pillow's greyscale; a file of one channel gives the same, and no colour."""
    path = str(tmp_path / "grey.tfrecords")
    tfrecords.write_images(path, (np.asarray(Image.open(p).convert("L"))[None] for p in images.list_images(photos)))
    of_colour, of_grey = (TrainingData(file, 32, seed=1, channels=1) for file in (training_file, path))
    for n in range(12):
        np.testing.assert_array_equal(of_colour.element(n)[0], of_grey.element(n)[0])
    (noisy, *_, clean), *_ = draw(path, 0, 1, crop_size=64, noise=corruption.create("text"), channels=1)
    assert noisy.shape == clean.shape == (3, 1, 64, 64)  # One of the images is smaller.
    with pytest.raises(dnnlib.UserError, match=r"grey\.tfrecords: holds greyscale images; train .* --channels 1"):
        TrainingData(path, 32, seed=1)


def test_shots_are_cropped_and_turned_alike(tmp_path):
    """Shots are ramps; blue tells the scene and the shot of a crop."""
    path, counts = str(tmp_path / "shots.tfrecords"), [2, 3, 5]
    y, x = np.mgrid[:40, :50]
    marked = [(scene, shot) for scene, count in enumerate(counts) for shot in range(count)]
    ramps = ((np.stack([y, x, 0 * y + 10 * scene + shot]).astype(np.uint8), scene) for scene, shot in marked)
    tfrecords.write_shots(path, ramps)
    data, drawn, turns = TrainingData(path, 32, seed=1, pairs=True, turned=True), [], set()
    for n in range(600):
        crops, _ = data.element(n)
        np.testing.assert_array_equal(crops[0, :2], crops[1, :2])  # Same crop, same turn.
        top, left = crops[0, :2].min(axis=(1, 2))
        square = np.stack([y, x])[:, top : top + 32, left : left + 32]
        turns.add(next(k for k in range(8) if np.array_equal(turn(square, k), crops[0, :2])))
        drawn.append(tuple(crops[:, 2, 0, 0].tolist()))
    assert turns == set(range(8))
    pairs = {(10 * s + a, 10 * s + b) for s, count in enumerate(counts) for a in range(count) for b in range(count)}
    assert set(drawn) == {(a, b) for a, b in pairs if a != b}  # Any two different shots in either order.
    for epoch in range(5):
        assert sorted(a // 10 for a, _ in drawn[3 * epoch : 3 * epoch + 3]) == [0, 1, 2]


def test_minibatches_of_shots(shots_file):
    recorded = corruption.create("none")
    run, resumed = (draw(shots_file, start, 6, noise=recorded) for start in (0, 4))
    for a, b in zip(run[4:], resumed):
        for x, y in zip(a, b):
            np.testing.assert_array_equal(x, y)
    noisy, target, _ = (np.concatenate(x) for x in zip(*run))
    assert noisy.shape == (18, 3, 32, 32) and abs(noisy).max() <= 0.5
    assert (noisy - target).std() == pytest.approx(20 / 255 * np.sqrt(2), rel=0.1)


def test_images_and_shots_are_told_apart(training_file, shots_file):
    with pytest.raises(dnnlib.UserError, match=r"single images, and --noise none needs two .*--pairs or --bursts"):
        TrainingData(training_file, 32, seed=1, pairs=True)
    with pytest.raises(dnnlib.UserError, match="train on them with --noise none"):
        TrainingData(shots_file, 32, seed=1)
