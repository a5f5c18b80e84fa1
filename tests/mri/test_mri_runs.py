"""Whole MRI runs against the same runs in NumPy. They show which settings and data reach the optimizer and the files.

The network is w x^2 + b g |x| with a fixed image g: small enough for NumPy. Its output has frequencies that the input
lacks, and translating the input does not merely translate the output.
"""

import os
import re

import numpy as np
import pytest
from conftest import write_set
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import config_mri
import network
from dnnlib import EasyDict, safe_pickle, tflib
from dnnlib.tflib import tf
from mri import dataset_mri, model

SHORT = EasyDict(num_epochs=2, minibatch_size=2)
PUBLISHED = EasyDict(
    SHORT,
    learning_rate=0.001,
    rampup_epochs=0,  # The run is too short for ramps.
    rampdown_epochs=0,
    beta1=0.9,
    beta1_rampdown=0.5,
    beta2=0.99,
    epsilon=1e-8,
    corrupt_targets=True,
    loss="image",
    augment_translation=64,
    load_network=None,
    snapshot_interval=10,
    optimizer="adam",
    weight_decay=0.0,
    p_at_edge=0.025,
    post_op="fspec",
    seed=1000,
    precision="auto",
)
CASES = {
    "published": SHORT,
    "measured": EasyDict(
        num_epochs=5,
        minibatch_size=2,
        microbatches=2,
        learning_rate=0.2,
        rampup_epochs=2,
        rampdown_epochs=2,
        beta1=0.8,
        beta1_rampdown=0.3,
        beta2=0.9,
        epsilon=1e-3,
        weight_decay=0.5,
        loss="measured",
        augment_translation=3,
        load_network="start.pkl",
        snapshot_interval=2,
        precision="bfloat16",
    ),
    "clean targets": EasyDict(
        num_epochs=2,
        minibatch_size=1,
        corrupt_targets=False,
        loss="measured",
        optimizer="muon",
        p_at_edge=0.1,
        post_op="none",
        seed=7,
    ),
}


GAIN = np.add.outer(np.linspace(0, 1, 255), np.linspace(0, 2, 255)).astype(np.float32)


def tiny(x, dtype):
    w = tf.get_variable("conv/W", [1, 1, 1, 1], initializer=network._he_init(1.0, seed_name="conv"))
    tiny.dtypes.add(dtype.name)
    b = tf.get_variable("conv/b", [1], initializer=tf.zeros_initializer())
    return w[0, 0] * tf.square(x) + b * GAIN * tf.abs(x)


def start_of(settings):
    """Return the initial (w, b)."""
    if settings.load_network:
        values = safe_pickle.load(settings.load_network)
    else:
        with tf.Graph().as_default(), tflib.create_session() as session:
            tf.set_random_seed(settings.seed)
            net = network.create_autoencoder_mri()
            session.run(tf.global_variables_initializer())
            values = net.get_values()
    return np.array([values["conv/W"].item(), values["conv/b"].item()])


def outputs(parameters, elements, settings):
    """Return (spectra after the post-operation, their derivatives by w and b, images before the post-operation)."""
    x, mask, known = (np.stack([getattr(e, field) for e in elements]) for field in ("input", "mask", "known"))
    derivatives = np.stack([x**2, GAIN * np.abs(x)])
    output = np.tensordot(parameters, derivatives, 1)
    spectrum, *by = (np.fft.fftshift(np.fft.fft2(y), axes=(-2, -1)) for y in (output, *derivatives))
    if settings.post_op == "fspec":
        spectrum, by = np.where(mask, known, spectrum), [np.where(mask, 0, d) for d in by]
    return spectrum, by, output


def loss_and_gradient(parameters, elements, settings):
    """Return the loss, as a sum over frequencies (Parseval), and its gradient."""
    spectrum, by, _ = outputs(parameters, elements, settings)
    target, weight = (np.stack([getattr(e, field) for e in elements]) for field in ("target", "weight"))
    weight = weight if settings.loss == "measured" else np.ones_like(weight)
    error = weight * spectrum - np.fft.fftshift(np.fft.fft2(target), axes=(-2, -1))
    share = 1 / np.maximum(weight, 1) / len(elements) / spectrum[0].size ** 2
    gradient = [2 * np.sum(share * (np.conj(error) * weight * d).real) for d in by]
    return np.sum(share * np.abs(error) ** 2), np.array(gradient)


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def decibels(parameters, data, settings, how):
    """Return [n, 3], each slice's PSNR of input, output and clamped output; and the pictures of the first slice."""
    elements = [dataset_mri.validation_element(data, how, settings.seed, i) for i in range(len(data))]
    spectrum, _, output = outputs(parameters, elements, settings)
    restored = np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(-2, -1))).real
    rows = [
        (psnr(e.input, e.target), psnr(y, e.target), psnr(y.clip(-0.5, 0.5), e.target))
        for e, y in zip(elements, restored)
    ]
    return np.array(rows), np.hstack([elements[0].input, output[0], restored[0], elements[0].target])


def train_in_numpy(settings, train_data, valid_data):
    """Train with Adam (Kingma & Ba 2015); yield after each epoch what the run should leave."""
    undersampling = dataset_mri.Undersampling(settings.p_at_edge)
    how = dataset_mri.Settings(undersampling, settings.corrupt_targets, settings.augment_translation)
    parameters, m, v = start_of(settings), np.zeros(2), np.zeros(2)
    power1, power2 = settings.beta1, settings.beta2
    n, up, down = settings.num_epochs, settings.rampup_epochs, settings.rampdown_epochs
    for epoch in range(n):
        rise = np.exp(-5 * (1 - epoch / up) ** 2) if epoch < up else 1
        fall = np.exp(-7.5 * ((epoch - (n - down)) / down) ** 2) if epoch > n - down else 1
        rate, beta1 = settings.learning_rate * rise * fall, fall * settings.beta1 + (1 - fall) * settings.beta1_rampdown
        losses = []
        for step in range(len(train_data) // settings.minibatch_size):
            positions = range(step * settings.minibatch_size, (step + 1) * settings.minibatch_size)
            elements = [dataset_mri.training_element(train_data, how, settings.seed, epoch, p) for p in positions]
            loss, gradient = loss_and_gradient(parameters, elements, settings)
            losses.append(loss)
            m = beta1 * m + (1 - beta1) * gradient
            v = settings.beta2 * v + (1 - settings.beta2) * gradient**2
            length = rate * np.sqrt(1 - power2) / (1 - power1)
            shrinkage = np.array([1 - rate * settings.weight_decay, 1])  # Of the kernel, and of no bias.
            parameters = shrinkage * parameters - length * m / (np.sqrt(v) + settings.epsilon)
            power1, power2 = power1 * beta1, power2 * settings.beta2
        table, picture = decibels(parameters, valid_data, settings, how)
        yield EasyDict(rate=rate, loss=np.mean(losses), w=parameters, m=m, v=v, decibels=table, picture=picture)


def arguments(settings):
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


def check_curves(run_dir, out, epochs):
    events = EventAccumulator(run_dir)
    events.Reload()
    curves = {tag: [p.value for p in events.Scalars(tag)] for tag in ("Loss", "test_db_clamped", "Learning_rate")}
    assert curves["Learning_rate"] == pytest.approx([e.rate for e in epochs], rel=1e-6)
    assert curves["Loss"] == pytest.approx([e.loss for e in epochs], rel=1e-4)
    assert curves["test_db_clamped"] == pytest.approx([e.decibels[:, 2].mean() for e in epochs], abs=1e-3)
    printed = re.findall(r"train_loss=([\d.]+), test_db_clamped=([\d.]+), lr=([\d.]+)$", out, re.M)
    for line, *values in zip(printed, *curves.values(), strict=True):
        assert [float(text) for text in line] == pytest.approx(values, abs=1e-5)


def check_networks(run_dir, epochs, settings):
    networks = {f"network-snapshot-{i:05d}.pkl": i for i in range(0, len(epochs), settings.snapshot_interval)}
    networks["network-final.pkl"] = len(epochs) - 1
    assert {name for name in os.listdir(run_dir) if name.startswith("network")} == {*networks}
    slot = {"adam": "Adam", "muon": "Muon"}[settings.optimizer]
    for name, epoch in networks.items():
        values = safe_pickle.load(os.path.join(run_dir, name))
        for suffix, expected in (("", "w"), (f"/{slot}", "m"), (f"/{slot}_1", "v")):
            found = [values[f"conv/{variable}{suffix}"].item() for variable in "Wb"]
            assert found == pytest.approx(epochs[epoch][expected], rel=1e-3), (name, suffix)


def check_examples(run_dir, epochs):
    table = np.loadtxt(os.path.join(run_dir, "psnr.txt"), converters={0: lambda text: float(text.strip(":"))}, ndmin=2)
    np.testing.assert_allclose(table[:, 1:], epochs[-1].decibels, atol=1e-3)
    for name in (f"img{len(epochs) - 1:05d}.png", "final00000.png"):
        picture = np.asarray(Image.open(os.path.join(run_dir, name)))[:255]
        np.testing.assert_allclose(picture, ((epochs[-1].picture + 0.5) * 255).clip(0, 255), atol=1)


@pytest.mark.parametrize("case", CASES)
def test_run_in_numpy(tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "autoencoder_mri", tiny)
    monkeypatch.setattr(model, "MINIBATCH", 2)
    tiny.dtypes = set()
    os.mkdir("datasets")
    write_set("datasets/ixi_train.pkl", 3, seed=0)
    write_set("datasets/ixi_valid.pkl", 3, seed=10)
    safe_pickle.dump("start.pkl", {"conv/W": np.full([1, 1, 1, 1], 1.5), "conv/b": np.full([1], 0.2)})
    config_mri.main(["train", *arguments(CASES[case])])
    out, (name,) = capsys.readouterr().out, os.listdir("results")
    run_dir = os.path.join("results", name)

    settings = EasyDict(PUBLISHED | CASES[case])
    if settings.precision != "auto":
        assert tiny.dtypes == {settings.precision}
    data = (dataset_mri.load(f"datasets/ixi_{part}.pkl") for part in ("train", "valid"))
    epochs = list(train_in_numpy(settings, *data))
    check_curves(run_dir, out, epochs)
    check_networks(run_dir, epochs, settings)
    check_examples(run_dir, epochs)

    same = {name: settings[name] for name in ("p_at_edge", "post_op", "seed", "precision")}
    capsys.readouterr()
    config_mri.main(["validate", f"--network-snapshot={run_dir}/network-final.pkl", *arguments(same)])
    figures = dict(re.findall(r"(\w+)=([\d.]+)", capsys.readouterr().out))
    found = [float(figures[name]) for name in ("corrupted", "output", "test_db_clamped")]
    assert found == pytest.approx(epochs[-1].decibels.mean(axis=0), abs=1e-3)
