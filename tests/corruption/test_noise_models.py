"""Corruptions: the published numbers, the form for training against that for validation in distribution, the losses."""

import os
import re

import numpy as np
import pytest
from conftest import GOLDEN_DIR
from scipy import stats

import corruption
import dnnlib
from corruption.poisson import poisson_counts
from dnnlib import tflib
from dnnlib.tflib import tf


@pytest.mark.parametrize("name,key", [("gaussian", "gauss25"), ("poisson", "poisson")])
def test_golden_validation_noise(name, key):
    z = np.load(os.path.join(GOLDEN_DIR, "noise.npz"))
    noise = corruption.create(name)
    noisy = noise.corrupt(z["clean"], np.random.RandomState(123), *noise.validation_strengths())
    np.testing.assert_allclose(noisy, z[f"{key}_seed123"], atol=1e-6)


def at_validation_strength(name, **strengths):
    """The noise model with one strength in training and validation: that of validation unless it is given."""
    settings = {s.name: strengths.get(s.name, s.validation) for s in corruption.NOISE_MODELS[name].strengths}
    return corruption.create(name, **settings, **{f"train_{n}": (value, value) for n, value in settings.items()})


def training_draws(noise, x, seeds):
    """`for_training` of the image x with each seed: (noisy [len(seeds), 3, H, W], weights [len(seeds), 1, H, W])."""
    with tf.Graph().as_default(), tflib.create_session() as session:
        seed = tf.placeholder(tf.int64, [2])
        noisy, weight = noise.for_training(tf.constant(x), seed)
        draws = [session.run([noisy, weight], {seed: s}) for s in seeds]
    return tuple(np.stack(values) for values in zip(*draws))


# Mean and variance of the corruption of x, lambda being 30, sigma 25 or (of both) 10, p 0.5 or (impulse) 0.7.
MOMENTS = {
    "gaussian": lambda x: (x, (25 / 255) ** 2),
    "poisson": lambda x: (x, (x + 0.5) / 30),
    "poisson-gaussian": lambda x: (x, (x + 0.5) / 30 + (10 / 255) ** 2),
    "bernoulli": lambda x: (0.5 * (x + 0.5) - 0.5, 0.25 * (x + 0.5) ** 2),
    "impulse": lambda x: (0.3 * x, 0.7 / 12 + 0.3 * x**2 - (0.3 * x) ** 2),
}


@pytest.mark.parametrize("level", [0, 13, 153, 255])  # Poisson rates 0, 1.5, 18 and 30.
@pytest.mark.parametrize("name", MOMENTS)
def test_both_forms_agree_in_distribution(name, level):
    noise, level = at_validation_strength(name), np.float32(level / 255 - 0.5)
    x = np.full([3, 200, 200], level)
    a, b = training_draws(noise, x, [(1, 2)])[0][0], noise.for_validation(x, 3, "a.png")
    a, b = (np.round(y.astype(np.float64), 5) for y in (a, b))
    mean, variance = map(float, MOMENTS[name](level))
    if variance == 0:  # No light, no noise.
        np.testing.assert_array_equal(a, b)
        return
    for channel in range(3):  # Each by itself: masks have them all in common.
        for y in (a[channel], b[channel]):
            assert y.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / y.size))
            assert y.var() == pytest.approx(variance, rel=0.05)
        assert stats.ks_2samp(a[channel].ravel(), b[channel].ravel()).pvalue > 1e-4


@pytest.mark.parametrize("name,p", [("bernoulli", 0.5), ("impulse", 0.7)])
def test_pixels_are_hit_in_all_channels_or_in_none(name, p):
    noise = at_validation_strength(name)
    x = np.full([3, 200, 200], 0.25, np.float32)
    for y in (training_draws(noise, x, [(1, 2)])[0][0], noise.for_validation(x, 3, "a.png")):
        hit = y != x
        assert np.array_equal(hit[0], hit[1]) and np.array_equal(hit[0], hit[2])
        assert hit.mean() == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / 40000))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.25, 0.5])
def test_text_covers_about_the_part_p_in_both_forms(p):
    noise = at_validation_strength("text", p=p)
    x = np.full([3, 96, 64], 0.123, np.float32)
    forms = (
        training_draws(noise, x, [(1, n) for n in range(30)])[0],
        [noise.for_validation(x, n, "a.png") for n in range(30)],
    )
    for images in forms:
        covered = [(y != x).any(axis=0).mean() for y in images]
        assert np.mean(covered) == pytest.approx(p, abs=0.015)
        assert np.max(np.abs(np.subtract(covered, p))) < 0.15
    means, deviations = zip(*((np.mean(images), np.std(images)) for images in forms))
    assert means[0] == pytest.approx(means[1], abs=0.02) and deviations[0] == pytest.approx(deviations[1], abs=0.02)


LEVEL = np.float32(191 / 255 - 0.5)
STRENGTHS = {  # From noisy images [n, 3, H, W] of LEVEL to strengths, as parts of the highest.
    "gaussian": lambda y: y.std(axis=(1, 2, 3)) * 255 / 50,
    "poisson": lambda y: np.minimum((LEVEL + 0.5) / np.maximum(y.std(axis=(1, 2, 3)), 1e-3) ** 2 / 50, 1),
    "bernoulli": lambda y: (y != LEVEL).mean(axis=(1, 2, 3)) / 0.95,
    "impulse": lambda y: (y != LEVEL).mean(axis=(1, 2, 3)) / 0.95,
}


@pytest.mark.parametrize("name", STRENGTHS)
def test_training_strength_is_drawn_per_image_over_its_whole_range(name):
    x = np.full([3, 24, 24], LEVEL)
    noisy, _ = training_draws(corruption.create(name), x, [(7, n) for n in range(300)])
    assert stats.kstest(STRENGTHS[name](noisy), "uniform").statistic < 0.12


def test_the_two_strengths_of_a_camera_are_independent():
    noise = corruption.create("poisson-gaussian")
    x = np.stack([np.full([24, 24], level, np.float32) for level in (-0.5, 0.5, 0.5)])  # Black has read noise only.
    variance = training_draws(noise, x, [(7, n) for n in range(300)])[0].var(axis=(2, 3))
    sigma, lam = np.sqrt(variance[:, 0]) * 255, 1 / np.maximum(variance[:, 1:].mean(axis=1) - variance[:, 0], 1e-3)
    assert abs(stats.spearmanr(sigma, lam)[0]) < 0.2
    assert stats.kstest(sigma / 25, "uniform").statistic < 0.12


@pytest.mark.parametrize("white", [0.001, 0.5, 7.0, 50.0, 256.0, 257.0, 750.0, 5000.0, 1e5])
@pytest.mark.parametrize("size", [12288, 400000])  # Coarse and fine guide tables.
def test_photon_counts_are_poisson_variates(white, size):
    rng = np.random.default_rng(5)
    levels = rng.choice(np.array([0, 1, 30, 128, 254, 255], np.uint8), size, p=[0.04, 0.04, 0.04, 0.04, 0.04, 0.8])
    counts = poisson_counts(levels.reshape(2, -1), white, rng).ravel()
    assert counts.dtype == np.float32
    for level in np.unique(levels):
        mean, found = white * level / 255, counts[levels == level]
        if mean == 0:
            assert not found.any()
            continue
        low, high = stats.poisson.ppf([1e-3, 1 - 1e-3], mean)
        edges = np.arange(low - 1, high + 1)  # Both tails in one class each.
        observed = np.bincount(np.searchsorted(edges, found), minlength=len(edges) + 1)
        expected = np.diff(np.concatenate([[0], stats.poisson.cdf(edges, mean), [1]])) * found.size
        merged = expected >= 5
        observed, expected = (np.append(x[merged], x[~merged].sum()) for x in (observed, expected))
        observed, expected = observed[expected > 0], expected[expected > 0]
        assert stats.chisquare(observed, expected).pvalue > 1e-5 if len(expected) > 1 else True
        far = mean + 4 * np.sqrt(mean)  # The far tail alone.
        tail = stats.binomtest(int(np.sum(found > far)), found.size, stats.poisson.sf(far, mean))
        assert tail.pvalue > 1e-5


def test_no_photons_at_all_give_finite_noise():
    noise = at_validation_strength("poisson", **{"lambda": 0.001})
    x = np.linspace(-0.5, 0.5, 3 * 64 * 64, dtype=np.float32).reshape(3, 64, 64)
    assert np.isfinite(training_draws(noise, x, [(1, 1)])[0]).all()


def test_missing_pixels_weigh_nothing_and_black_ones_that_are_there_do():
    x = np.full([3, 64, 64], 0.25, np.float32)
    x[:, :32] = -0.5
    noisy, weight = training_draws(at_validation_strength("bernoulli"), x, [(1, 2)])
    assert weight.shape == (1, 1, 64, 64)
    np.testing.assert_array_equal(weight[0, 0, 32:] == 1, noisy[0, 0, 32:] == 0.25)
    assert 0.4 < weight[0, 0, :32].mean() < 0.6 and set(np.unique(weight)) == {0, 1}


def test_other_pixels_all_weigh_the_same():
    for name in set(corruption.NOISE_MODELS) - {"bernoulli"}:
        weight = training_draws(at_validation_strength(name), np.zeros([3, 8, 8], np.float32), [(1, 2)])[1]
        np.testing.assert_array_equal(weight, [[[[1]]]])


def test_draws_are_those_of_their_seeds():
    x = np.zeros([3, 64, 64], np.float32)
    for name in set(corruption.NOISE_MODELS) - {"none"}:
        noise = corruption.create(name)
        first, again, other = training_draws(noise, x, [(5, 6), (5, 6), (5, 7)])[0]
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other), name


def test_validation_noise_depends_on_seed_and_name_alone():
    def draw(seed, name):
        return corruption.generator(seed, name).standard_normal(4).tolist()

    assert draw(1, "a.png") == draw(1, "a.png")
    assert draw(1, "a.png") != draw(2, "a.png")
    assert draw(1, "a.png") != draw(1, "b.png")


@pytest.mark.parametrize("name,progress,best", [("l2", 0.5, 0.21), ("l1", 0.5, 0.1), ("annealed", 0.99, -0.2)])
def test_losses_find_mean_median_and_mode(name, progress, best):
    targets = np.concatenate([np.full(300, -0.2), np.linspace(-0.5, 0.0999, 200), np.linspace(0.1001, 1.139, 500)])
    candidates = np.linspace(-0.5, 1.2, 341)
    mean_losses = [corruption.loss_function(name)(c - targets, progress).mean() for c in candidates]
    assert candidates[np.argmin(mean_losses)] == pytest.approx(best, abs=0.006)


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.99999, 1.0])
def test_annealed_loss_has_finite_gradients_and_begins_as_squared_error(progress):
    error = np.array([0, 1e-30, -1e-9, 1e-8, 1e-4, -0.1, 1], np.float32)
    with tf.Graph().as_default(), tflib.create_session() as session:
        e, t = tf.constant(error), tf.placeholder(tf.float32, [])
        loss = corruption.loss_function("annealed")(e, t)
        value, gradient = session.run([loss, tf.gradients(loss, e)[0]], {t: progress})
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    if progress == 0:
        np.testing.assert_allclose(value, error**2, atol=1e-7)
        np.testing.assert_allclose(gradient, 2 * error, atol=1e-7)


def test_mistakes_are_named():
    with pytest.raises(dnnlib.UserError, match="'salt' is not known; there are gaussian, poisson"):
        corruption.create("salt")
    with pytest.raises(dnnlib.UserError, match="'l3' is not known; there are l2, l1, annealed"):
        corruption.loss_function("l3")


@pytest.mark.parametrize(
    "name,settings,message",
    [
        ("bernoulli", {"train_p": (0, 95)}, "--train-p 0 95: has to be LOW HIGH, each a probability from 0 to below 1"),
        ("text", {"p": 1}, "--p 1: is not a probability from 0 to below 1"),
        ("impulse", {"p": float("nan")}, "--p nan: is not a probability"),
        ("poisson", {"train_lambda": (0, 50)}, "--train-lambda 0 50: has to be LOW HIGH, each a number above 0"),
        ("poisson-gaussian", {"lambda": -30}, "--lambda -30: is not a number above 0"),
        ("poisson-gaussian", {"sigma": -1}, "--sigma -1: is not a number from 0"),
        ("gaussian", {"train_sigma": (50, 0)}, "--train-sigma 50 0: has to be LOW HIGH"),
        ("gaussian", {"train_sigma": 25}, "--train-sigma 25: has to be LOW HIGH"),
        ("gaussian", {"train_sigma": (0, float("inf"))}, "--train-sigma 0.0 inf: has to be LOW HIGH"),
        ("camera", {"log_shot": 1}, "--log-shot 1: is not a number from -8 to 0"),
        ("gaussian", {"p": 0.5}, "--p: there is no such setting of this noise"),
    ],
)
def test_settings_that_make_no_sense_are_named(name, settings, message):
    with pytest.raises(dnnlib.UserError, match=re.escape(message)):
        corruption.create(name, **settings)


def test_poisson_noise_of_other_levels_than_256_is_exact():
    noise, rng = corruption.create("poisson"), np.random.default_rng(0)
    x = np.float32([[[0.3 / 255 - 0.5], [-0.7]]]).repeat(20_000, axis=2)  # Between two levels; below black.
    counts = (noise.sample(x, rng, 2000.0)[0] + 0.5) * 2000
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    mean = 2000 * 0.3 / 255
    assert counts[0, 0].mean() == pytest.approx(mean, rel=0.02) and counts[0, 0].var() == pytest.approx(mean, rel=0.05)
    assert not counts[0, 1].any() and (noise.for_validation(x, 1, "a")[0, 1] == -0.5).all()
