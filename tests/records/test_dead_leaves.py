"""Dead leaves: reproducible by seed, with the statistics of photographs."""

import itertools

import numpy as np
import pytest

from records import dead_leaves


@pytest.fixture(scope="module")
def rendered():
    return list(dead_leaves.dead_leaves_images(12, seed=5, size=128))


def test_seed_and_number_decide_the_image(rendered):
    shorter = list(dead_leaves.dead_leaves_images(2, seed=5, size=128))  # Rendered without worker processes.
    assert np.array_equal(shorter, rendered[:2])
    assert np.array_equal(dead_leaves.dead_leaves(128, 128, np.random.default_rng((5, 11))), rendered[11])


def test_images_differ(rendered):
    others = list(dead_leaves.dead_leaves_images(2, seed=6, size=128))
    assert len({pixels.tobytes() for pixels in rendered + others}) == 14


@pytest.mark.parametrize("height, width", [(16, 16), (40, 200), (301, 33)])
def test_any_size(height, width):
    pixels = dead_leaves.dead_leaves(height, width, np.random.default_rng(0))
    assert pixels.shape == (3, height, width) and pixels.dtype == np.uint8 and pixels.std() > 0


def test_statistics_match_photographs(rendered):
    """Compare with the photographs of BSDS300: power slope -2.4, luminance 113 +- 49, kurtosis 28."""
    luminance = np.stack(rendered).astype(float).mean(axis=1)
    assert 70 < luminance.mean() < 140
    assert 30 < luminance.std(axis=(1, 2)).mean() < 65
    gradient = np.diff(luminance, axis=2)
    kurtosis = np.mean(gradient**4, axis=(1, 2)) / np.mean(gradient**2, axis=(1, 2)) ** 2
    assert kurtosis.mean() > 8  # Gaussian noise has 3; smooth regions and sharp edges have more.
    assert -2.9 < np.mean([power_slope(y) for y in luminance]) < -1.9
    saturated = np.mean(np.stack(rendered) == 255)
    assert saturated < 0.05


def test_sizes_follow_power_law():
    """r^-3 means a quarter as many leaves between 2r and 4r as between r and 2r, in an unbounded plane."""
    h = w = 4000  # So large that few leaves reach in from outside.
    radii = np.concatenate([dead_leaves._draw_places(h, w, np.random.default_rng(k))[1][1:] for k in range(4)])
    r = 40  # Above any r_min (32).
    ratio = np.sum((radii >= 2 * r) & (radii < 4 * r)) / np.sum((radii >= r) & (radii < 2 * r))
    assert ratio == pytest.approx(0.25, rel=0.1)


def power_slope(y):
    """Return the slope of log(radially averaged power) over log(frequency)."""
    side = len(y)
    power = np.abs(np.fft.fft2((y - y.mean()) * np.outer(np.hanning(side), np.hanning(side)))) ** 2
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    edges = np.geomspace(0.03, 0.4, 9)
    average = [power[(f >= low) & (f < high)].mean() for low, high in itertools.pairwise(edges)]
    return np.polyfit(np.log(edges[:-1]), np.log(average), 1)[0]
