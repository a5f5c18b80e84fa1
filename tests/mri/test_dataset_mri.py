"""Tests of MRI data: elements, their order, minibatches, and files that are refused."""

import os
import pickle

import numpy as np
import pytest

from dnnlib import UserError, safe_pickle
from imaging.images import to_float
from mri import dataset_mri, kspace
from mri.dataset_mri import MriData, Settings, Undersampling


def make_data(count):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 256, 256), dtype=np.uint8)
    return MriData(pixels, kspace.fft2c(to_float(pixels[:, :255, :255])))


@pytest.fixture(scope="module")
def data():
    return make_data(5)


N2N = Settings(Undersampling())
STILL = Settings(Undersampling(), augment_translation=0)
CLEAN = Settings(Undersampling(), corrupt_targets=False, augment_translation=0)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b))


def test_pure_elements(data):
    """An element depends on seed, epoch and position, and on no element made before it."""
    first = dataset_mri.training_element(data, N2N, 7, 3, 2)
    for epoch, position in [(0, 0), (3, 1), (4, 2)]:  # Other elements made in between leave no trace.
        assert not same(first, dataset_mri.training_element(data, N2N, 7, epoch, position))
    assert same(first, dataset_mri.training_element(data, N2N, 7, 3, 2))
    assert not same(first, dataset_mri.training_element(data, N2N, 8, 3, 2))


def test_element_types(data):
    for element in [dataset_mri.training_element(data, N2N, 1, 0, 0), dataset_mri.validation_element(data, N2N, 1, 0)]:
        assert [x.dtype for x in element] == [np.float32, np.float32, np.bool_, np.complex64, np.float32]
        assert {x.shape for x in element} == {(255, 255)}


def shown_slice(data, element):
    """Return [index] of the slice that equals the target; [] if the target was translated or is not clean."""
    return [i for i in range(len(data)) if np.array_equal(element.target, data.image(i))]


def test_epoch_order(data):
    """Each epoch has every slice once; orders differ."""
    orders = [
        [shown_slice(data, dataset_mri.training_element(data, CLEAN, 1, epoch, i))[0] for i in range(5)]
        for epoch in range(3)
    ]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_repeated_slices(data):
    """An epoch longer than the data repeats slices, with other masks."""
    once, again = (dataset_mri.training_element(data, CLEAN, 1, 0, i) for i in (1, 6))
    np.testing.assert_array_equal(once.target, again.target)
    assert not np.array_equal(once.mask, again.mask)


@pytest.mark.parametrize(
    "num_images,minibatch_size,expected", [(1, 16, 1), (15, 16, 1), (16, 16, 1), (47, 16, 2), (5000, 16, 312)]
)
def test_minibatches_per_epoch(num_images, minibatch_size, expected):
    assert dataset_mri.minibatches_per_epoch(num_images, minibatch_size) == expected


def test_known_frequencies(data):
    """`known` is the spectrum of the translated clean image, where the mask keeps it."""
    settings = Settings(Undersampling(), corrupt_targets=False)
    element = dataset_mri.training_element(data, settings, 1, 0, 0)
    assert not shown_slice(data, element)  # It was moved.
    spectrum = kspace.fft2c(element.target)
    np.testing.assert_allclose(element.known, np.where(element.mask, spectrum, 0), atol=1e-5 * np.abs(spectrum).max())
    seen = kspace.ifft2c(element.known / settings.undersampling.probability)
    np.testing.assert_allclose(element.input, seen, atol=1e-4)
    noisy = dataset_mri.training_element(data, N2N, 1, 0, 0)  # It differs in the target only.
    assert same([element.input, element.mask, element.known], [noisy.input, noisy.mask, noisy.known])


def test_translation(data):
    settings = Settings(Undersampling(), corrupt_targets=False, augment_translation=2)
    shifts = set()
    for position in range(60):
        element = dataset_mri.training_element(data, settings, 1, 0, position)
        image = data.image(dataset_mri._order(5, 1, 0)[position % 5])
        product = np.fft.ifft2(np.fft.fft2(element.target) * np.conj(np.fft.fft2(image))).real
        dy, dx = np.unravel_index(product.argmax(), product.shape)
        np.testing.assert_array_equal(np.roll(image, (dy, dx), (0, 1)), element.target)
        shifts.add(((dy + 127) % 255 - 127, (dx + 127) % 255 - 127))
    assert {dy for dy, _ in shifts} == {dx for _, dx in shifts} == {-2, -1, 0, 1, 2}


def test_noisy_target(data):
    element = dataset_mri.training_element(data, STILL, 1, 0, 0)
    probability = STILL.undersampling.probability
    target_mask = np.abs(kspace.fft2c(element.target)) > 1e-2  # Dropped frequencies are zero up to rounding.
    assert 0.09 < target_mask.mean() < 0.12
    both = (target_mask & element.mask).mean()
    assert both == pytest.approx(np.square(probability).mean(), rel=0.1)


def test_weights(data):
    """The target's spectrum is the clean spectrum times `weight`."""
    for settings in (STILL, CLEAN):
        element = dataset_mri.training_element(data, settings, 1, 0, 0)
        clean = data.spectra[dataset_mri._order(5, 1, 0)[0]]
        seen = kspace.fft2c(element.target)
        np.testing.assert_allclose(seen, clean * element.weight, atol=1e-4 * np.abs(seen).max())
        assert (element.weight == 0).any() == settings.corrupt_targets


def test_validation_elements(data):
    """Targets are the clean slices in order; the masks are fixed, and are not those of training."""
    elements = [dataset_mri.validation_element(data, N2N, 1, i) for i in range(5)]
    assert [shown_slice(data, e) for e in elements] == [[0], [1], [2], [3], [4]]
    assert same(elements[3], dataset_mri.validation_element(data, N2N, 1, 3))
    masks = [e.mask for e in elements] + [dataset_mri.training_element(data, STILL, 1, 0, i).mask for i in range(5)]
    assert len({m.tobytes() for m in masks}) == 10


@pytest.mark.parametrize("p_at_edge", [0, -1, 1.5, float("nan")])
def test_impossible_probability(p_at_edge):
    with pytest.raises(UserError, match="probability at edge"):
        Undersampling(p_at_edge)


def test_load(tmp_path, data, capsys):
    path = str(tmp_path / "x.pkl")
    safe_pickle.dump(path, (data.images, data.spectra))
    loaded = dataset_mri.load(path)
    assert capsys.readouterr().out == f"Loading dataset from {path}\n"
    assert len(loaded) == 5 and same((loaded.images, loaded.spectra), (data.images, data.spectra))
    assert loaded.image(1).dtype == np.float32 and loaded.image(1).max() == 0.5


class Runs:
    def __reduce__(self):
        return os.mkdir, ("made",)


images, spectra = make_data(2).images, make_data(2).spectra
MALFORMED = {
    "hostile": (images, spectra, Runs()),
    "one array": images,
    "no arrays": ([1], [2]),
    "dictionary": {"images": images, "spectra": spectra},
    "swapped": (spectra, images),
    "float images": (images.astype(np.float32), spectra),
    "double spectra": (images, spectra.astype(np.complex128)),
    "cropped": (images[:, :255, :255], spectra),
    "one slice without an axis": (images[0], spectra[0]),
    "unequal": (images, spectra[:1]),
    "none": (images[:0], spectra[:0]),
    "not shifted": (images, kspace.ifftshift(spectra)),
    "not finite": (images, spectra * np.nan),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_load_other_files(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(MALFORMED[case]))
    with pytest.raises(UserError, match=r"^x\.pkl: [^\n]+$"):
        dataset_mri.load("x.pkl")
    assert os.listdir() == ["x.pkl"]


@pytest.mark.parametrize("count,minibatch_size", [(5, 2), (3, 4)])
def test_minibatches(count, minibatch_size):
    """Minibatches hold the elements in order; those of a resumed run are the same."""
    from dnnlib.tflib import tf

    data = make_data(count)
    per_epoch = dataset_mri.minibatches_per_epoch(count, minibatch_size)

    def run(start, stop):
        with tf.Graph().as_default(), tf.Session() as session:
            batches = dataset_mri.minibatches(data, N2N, 1, minibatch_size, start, stop)
            iterator = tf.data.make_initializable_iterator(batches)
            following = iterator.get_next()
            assert [x.shape for x in following] == [(minibatch_size, 255, 255)] * 5
            session.run(iterator.initializer)
            result = [session.run(following) for _ in range(stop - start)]
            with pytest.raises(tf.errors.OutOfRangeError):
                session.run(following)
        return result

    whole, resumed = run(0, 3 * per_epoch), run(per_epoch, 3 * per_epoch)
    assert all(same(a, b) for a, b in zip(whole[per_epoch:], resumed))
    for number, batch in enumerate(whole):
        epoch, first = divmod(number * minibatch_size, per_epoch * minibatch_size)
        for i in range(minibatch_size):
            element = dataset_mri.training_element(data, N2N, 1, epoch, first + i)
            assert same(element, [x[i] for x in batch])
