"""Corruptions: the published numbers, and the form for training against that for validation in distribution."""

import numpy as np
import pytest
from scipy import stats

import corruption
import dnnlib
from dnnlib import tflib
from dnnlib.tflib import tf

GAUSSIAN = {"train_sigma": (0.0, 50.0), "validation_sigma": 25.0}
POISSON = {"train_lambda": (0.001, 50.0), "validation_lambda": 30.0}


@pytest.mark.parametrize("name,settings,key", [("gaussian", GAUSSIAN, "gauss25"), ("poisson", POISSON, "poisson")])
def test_golden_validation_noise(name, settings, key):
    z = np.load("tests/golden/noise.npz")
    noisy = corruption.create(name, **settings).for_validation(z["clean"], np.random.RandomState(123))
    np.testing.assert_allclose(noisy, z[f"{key}_seed123"], atol=1e-6)


def training_draws(noise, x, seeds):
    """`for_training` of the image x with each seed: [len(seeds), 3, H, W]."""
    with tf.Graph().as_default(), tflib.create_session() as session:
        seed = tf.placeholder(tf.int64, [2])
        noisy = noise.for_training(tf.constant(x), seed)
        return np.stack([session.run(noisy, {seed: s}) for s in seeds])


@pytest.mark.parametrize("level", [0, 13, 153, 255])  # Poisson rates 0, 1.5, 18 and 30.
@pytest.mark.parametrize("name,strength", [("gaussian", 25.0), ("poisson", 30.0)])
def test_both_forms_agree_in_distribution(name, strength, level):
    kind = {"gaussian": "sigma", "poisson": "lambda"}[name]
    noise = corruption.create(name, **{f"train_{kind}": (strength, strength), f"validation_{kind}": strength})
    level = np.float32(level / 255 - 0.5)
    x = np.full([3, 200, 200], level)
    a = training_draws(noise, x, [(1, 2)])[0].ravel()
    b = noise.for_validation(x, np.random.default_rng(3)).ravel()
    if a.std() == 0:  # No light, no noise.
        np.testing.assert_array_equal(a, b)
        return
    standard_error = a.std() / np.sqrt(a.size)
    assert a.mean() == pytest.approx(level, abs=5 * standard_error)  # Neither form is biased.
    assert b.mean() == pytest.approx(level, abs=5 * standard_error)
    assert a.var() == pytest.approx(b.var(), rel=0.03)
    assert stats.ks_2samp(np.round(a.astype(np.float64), 5), np.round(b, 5)).pvalue > 1e-4


@pytest.mark.parametrize("name,settings", [("gaussian", GAUSSIAN), ("poisson", POISSON)])
def test_training_strength_is_drawn_per_image_over_its_whole_range(name, settings):
    x = np.full([3, 24, 24], 0.25, np.float32)
    deviations = training_draws(corruption.create(name, **settings), x, [(7, n) for n in range(300)]).std(
        axis=(1, 2, 3)
    )
    # Strengths from deviations: sigma = 255 std; lambda = rate / std^2.
    strengths = deviations * 255 if name == "gaussian" else 0.75 / np.maximum(deviations, 1e-3) ** 2
    uniform = stats.kstest(np.minimum(strengths / 50, 1), "uniform")
    assert uniform.statistic < 0.12


@pytest.mark.parametrize("white", [0.001, 0.5, 7.0, 50.0])
@pytest.mark.parametrize("size", [12288, 400000])  # Coarse and fine guide tables.
def test_photon_counts_have_their_distribution_at_every_level(white, size):
    rng = np.random.default_rng(5)
    levels = rng.choice(np.array([0, 1, 30, 128, 254, 255], np.uint8), size)
    counts = corruption.poisson_counts(levels.reshape(2, -1), white, rng).ravel()
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


def test_no_photons_at_all_give_finite_noise():
    noise = corruption.create("poisson", train_lambda=(0.001, 0.001), validation_lambda=30.0)
    draws = training_draws(noise, np.linspace(-0.5, 0.5, 3 * 64 * 64, dtype=np.float32).reshape(3, 64, 64), [(1, 1)])
    assert np.isfinite(draws).all()


def test_validation_noise_depends_on_seed_and_name_alone():
    def draw(seed, name):
        return corruption.generator(seed, name).standard_normal(4).tolist()

    assert draw(1, "a.png") == draw(1, "a.png")
    assert draw(1, "a.png") != draw(2, "a.png")
    assert draw(1, "a.png") != draw(1, "b.png")


def test_unknown_noise_is_named():
    with pytest.raises(dnnlib.UserError, match="'salt' is not known; there are gaussian, poisson"):
        corruption.create("salt")
