"""The camera model against the statistics that its equations give."""

import numpy as np
import pytest
from scipy.signal import convolve2d

import config
import corruption
import dnnlib
import validation
from corruption import camera
from dnnlib import tflib
from dnnlib.tflib import tf
from imaging import images, rgb_files

LOG_SHOT = -3.0
PLAIN = camera.Camera(
    matrix_weights=(1.0, 0.0, 0.0, 0.0),
    shoulder=1.0,
    contrast=0.0,
    demosaicing="bilinear",
    luma_blur=0.0,
    chroma_blur=0.0,
    quality=None,
)
# The first of the four cameras, from the published XYZ coefficients and those of sRGB.
TO_CAMERA = np.array([[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]]) @ np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
FROM_CAMERA = np.linalg.inv(TO_CAMERA / TO_CAMERA.sum(axis=1, keepdims=True))


def flat(level, size=192):
    return np.full([3, size, size], level, np.uint8)


def rngs(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


def to_linear(pixels):
    v = pixels / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def raw_variance(linear, gains=PLAIN.gains):
    """Variance of the sensor's three colours after white balance, for grey of this linear light."""
    gains, shot = np.array(gains), 10**LOG_SHOT
    return gains**2 * (shot * linear / gains + np.exp(2.18 * np.log(shot) + 1.2))


@pytest.mark.parametrize("level", [60, 120, 190])
def test_variance_in_linear_light_is_that_of_shot_and_read_noise(level):
    _, shot = camera.render(PLAIN, flat(level), LOG_SHOT, rngs(1))
    # Parts of a colour's variance that are left at pixels of red, green in red rows, green in blue rows, and blue.
    left = np.array([[1, 1 / 4, 1 / 4], [1 / 2, 1, 1 / 2], [1 / 2, 1, 1 / 2], [1 / 4, 1 / 4, 1]])
    expected = FROM_CAMERA**2 @ (raw_variance(to_linear(level)) * left.mean(axis=0))
    np.testing.assert_allclose(to_linear(shot).var(axis=(1, 2)), expected, rtol=0.06)


# Malvar, He and Cutler 2004, figure 2, times 8: green at red or blue; a colour in its own rows; opposite colours.
GREEN = [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
ROWS = [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
OPPOSITE = [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]


def sites(shape, red=(0, 0)):
    """Masks of the pixels of red, green in red rows, green in blue rows, and blue."""
    y, x = np.indices(shape)
    row, column = (y - red[0]) % 2, (x - red[1]) % 2
    return [(row == a) & (column == b) for a, b in ((0, 0), (0, 1), (1, 0), (1, 1))]


def interpolated(mosaic, kind, red=(0, 0)):
    """Demosaicing by convolution: [H, W] -> [3, H, W]."""
    at_red, in_red_rows, in_blue_rows, at_blue = sites(mosaic.shape, red)
    if kind == "bilinear":
        cross, square = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4, np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
        kernels = {0: (at_red, square), 1: (in_red_rows | in_blue_rows, cross), 2: (at_blue, square)}
        return np.stack([convolve2d(mosaic * mask, kernel, mode="same") for mask, kernel in kernels.values()])
    green, rows, opposite = (convolve2d(mosaic, np.array(k) / 8, mode="same") for k in (GREEN, ROWS, OPPOSITE))
    columns = convolve2d(mosaic, np.array(ROWS).T / 8, mode="same")
    red_plane = np.select([at_red, in_red_rows, in_blue_rows], [mosaic, rows, columns], opposite)
    blue_plane = np.select([at_blue, in_blue_rows, in_red_rows], [mosaic, rows, columns], opposite)
    return np.stack([red_plane, np.where(at_red | at_blue, green, mosaic), blue_plane])


@pytest.mark.parametrize("red", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("kind", ["bilinear", "malvar"])
def test_demosaicing_is_the_published_convolution(kind, red):
    mosaic = np.random.default_rng(0).random([20, 22], np.float32)
    inner = (slice(None), slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(
        camera.demosaic(mosaic, red, kind)[inner], interpolated(mosaic, kind, red)[inner], atol=1e-5
    )


def test_edge_directed_demosaicing_keeps_straight_edges_of_grey():
    for edge in (np.arange(20) >= 9, np.arange(20)[:, None] >= 9):
        image = np.broadcast_to(edge, [20, 20]).astype(np.float32)
        for red in ((0, 0), (0, 1), (1, 0), (1, 1)):
            np.testing.assert_array_equal(camera.demosaic(image, red, "hamilton-adams"), [image] * 3)


def correlations(noise):
    """Of noise [3, H, W]: between channels, and between neighbours at some distances in luma and in chroma."""
    luma = np.tensordot([0.299, 0.587, 0.114], noise, 1)
    found = [np.corrcoef(noise[a].ravel(), noise[b].ravel())[0, 1] for a, b in ((0, 1), (1, 2), (0, 2))]
    for plane in (luma, noise[0] - luma, noise[2] - luma):
        for a, b in (
            (plane[:, 1:], plane[:, :-1]),
            (plane[1:], plane[:-1]),
            (plane[:, 2:], plane[:, :-2]),
            (plane[:, 3:], plane[:, :-3]),
        ):
            found.append(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    return np.array(found)


def blurred(plane, sigma):
    kernel = np.exp(-(np.arange(-12, 13) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    return convolve2d(convolve2d(plane, kernel[None], mode="same"), kernel[:, None], mode="same")


@pytest.mark.parametrize("kind,blurs", [("bilinear", None), ("malvar", None), ("malvar", (0.8, 2.0))])
def test_noise_is_correlated_as_demosaicing_and_noise_reduction_make_it(kind, blurs):
    size, level = 256, 120
    settings = PLAIN._replace(demosaicing=kind)
    if blurs:
        settings = settings._replace(luma_blur=blurs[0], chroma_blur=blurs[1])
    clean, shot = camera.render(settings, flat(level, size), LOG_SHOT, rngs(2))

    deviation = np.sqrt(raw_variance(to_linear(level)))
    mosaic = np.random.default_rng(3).standard_normal([size, size])
    mosaic *= np.select(sites(mosaic.shape), deviation[[0, 1, 1, 2]])
    expected = np.tensordot(FROM_CAMERA, interpolated(mosaic, kind), 1)
    if blurs:
        luma = np.tensordot([0.299, 0.587, 0.114], expected, 1)
        expected = blurred(luma, blurs[0]) + np.stack([blurred(plane - luma, blurs[1]) for plane in expected])
    np.testing.assert_allclose(correlations(shot - clean.astype(float)), correlations(expected), atol=0.06)


def test_mean_of_many_shots_is_the_clean_image_in_mid_tones():
    y, x = np.mgrid[:64, :64]
    scene = np.stack([80 + y, 170 - x, 110 + 20 * np.sin(x / 5) * np.cos(y / 7)]).astype(np.uint8)
    clean, *shots = camera.render(PLAIN, scene, -3.5, rngs(*range(100)))
    error = np.mean(shots, axis=0) - clean
    assert abs(error.mean()) < 0.3  # On the scale of 0..255; the standard deviation of a shot's noise is about 3.
    rounding = 1 / 12  # Variance of the clean image's.
    assert error.std() == pytest.approx(np.sqrt(np.var(shots, axis=0).mean() / 100 + rounding), rel=0.15)


@pytest.mark.parametrize("level", [0, 5, 40, 128, 230, 255])
def test_without_noise_greys_stay_as_they_are_and_white_does_not_turn_pink(level):
    for shoulder, contrast in ((1.0, 0.0), (4.0, 1.0)):
        settings = camera.Camera()._replace(shoulder=shoulder, contrast=contrast)
        (clean,) = camera.render(settings, flat(level, 8), LOG_SHOT, [])
        np.testing.assert_allclose(clean, level, atol=1)


@pytest.mark.parametrize("height,width", [(1, 1), (2, 3), (5, 200), (33, 64)])
def test_images_keep_their_size_whatever_the_camera(height, width):
    scene = np.random.default_rng(0).integers(256, size=[3, height, width], dtype=np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for image in camera.render(camera.draw(rng), scene, -2.0, [rng, rng]):
            assert image.shape == scene.shape and image.dtype == np.uint8


def test_two_shots_share_camera_and_strength_and_differ_in_noise():
    noise = corruption.create("camera")
    x = images.to_float(flat(110, 64))
    with tf.Graph().as_default(), tflib.create_session() as session:
        seeds = tf.placeholder(tf.int64, [2, 2])
        pair = noise.pair_for_training([tf.constant(x)], seeds)
        alone = noise.for_training(tf.constant(x), seeds[0])[0]
        draws = [session.run([*pair, alone], {seeds: [[1, k], [2, k]]}) for k in range(60)]
        again = session.run(pair, {seeds: [[1, 0], [2, 0]]})
    for first, second in zip(draws[0], again):
        np.testing.assert_array_equal(first, second)
    strengths, products = [], []
    for noisy, target, weight, clean, single in draws:
        np.testing.assert_array_equal(noisy, single)
        np.testing.assert_array_equal(weight, [[[1]]])
        a, b = (shot - clean - (shot - clean).mean(axis=(1, 2), keepdims=True) for shot in (noisy, target))
        strengths.append((a.std(), b.std()))
        products.append(np.mean(a * b) / (a.std() * b.std()))
    assert np.corrcoef(np.log(strengths).T)[0, 1] > 0.98 and np.ptp(np.log(strengths)) > 1.5
    assert abs(np.mean(products)) < 0.02


def test_validation_compares_with_the_rendering_without_noise(photos, monkeypatch):
    monkeypatch.setattr(validation, "denoise", lambda network, noisy: noisy)
    noise = corruption.create("camera")
    results = list(validation.ValidationSet(str(photos), noise, seed=7).evaluate(network=None))
    assert len(results) == 4
    for result in results:
        scene, rng = rgb_files.read_rgb(photos / result.name), corruption.generator(7, result.name)
        clean, shot = camera.render(camera.Camera(), scene, noise.values["log_shot"], [rng])
        np.testing.assert_array_equal(result.clean, clean)
        np.testing.assert_array_equal(result.noisy, shot)


def test_preview_shows_the_camera(photos, tmp_path):
    config.main(["preview", "--noise", "camera", "--image", f"{photos}/photo1.png", "--out", f"{tmp_path}/sheet.png"])
    sheet = rgb_files.read_rgb(tmp_path / "sheet.png")
    assert sheet.shape == (3, 2 * 102 + 4, 5 * 76 + 4)
    weakest, strongest = (sheet[:, 132:204, left : left + 72].astype(int) - sheet[:, 30:102, 4:76] for left in (4, 308))
    assert strongest.std() > 2 * weakest.std()


def test_images_that_a_camera_cannot_take():
    noise = corruption.create("camera")
    noise.check_images(3, "uint8")
    for kind in ((1, "uint8"), (3, "uint16"), (3, "float32")):
        with pytest.raises(dnnlib.UserError, match=r"^--noise camera: "):
            noise.check_images(*kind)


def test_scenes_are_enlarged_log_uniformly():
    factors = np.array([camera.draw(np.random.default_rng(seed)).enlargement for seed in range(400)])
    assert factors.min() >= 1.5 and factors.max() <= 6
    quarters = np.histogram(np.log(factors), 4, (np.log(1.5), np.log(6)))[0]
    np.testing.assert_allclose(quarters, 100, atol=35)
