"""Tests of training on MRI slices: the schedule, and a whole run."""

import contextlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import GOLDEN_DIR, write_set
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import config_mri
import dnnlib
from dnnlib import safe_pickle, tflib
from dnnlib.tflib import layers, tf
from mri.model import Model
from train_mri import ramps, schedule


def test_golden_schedule():
    for epoch, rampup, rampdown, lr, beta1 in np.load(os.path.join(GOLDEN_DIR, "schedules.npz"))[
        "mri_epoch_rampup_rampdown_lr_beta1"
    ]:
        assert ramps(epoch, 300, 10, 30) == pytest.approx((rampup, rampdown), rel=1e-12)
        assert schedule(epoch, 300, 0.001, 0.9, 0.5, 10, 30) == pytest.approx((lr, beta1), rel=1e-6)


@pytest.mark.parametrize(
    "options,expected",
    [
        ([60], (10, 30)),
        ([40], (10, 30)),
        ([39], (3, 13)),
        ([60, "--rampup-epochs=20"], (20, 30)),
        ([20, "--rampdown-epochs=30"], (10, 30)),
        ([20, "--rampup-epochs=0"], (0, 30)),
    ],
)
def test_short_ramps(tmp_path, monkeypatch, capsys, options, expected):
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(dnnlib.UserError):  # The settings are printed before the data are found missing.
        config_mri.main(["--dry-run", "--num-epochs", *map(str, options)])
    lines = dict(re.findall(r"^ramp(\w+)_epochs = (\d+)$", capsys.readouterr().out, re.M))
    assert (int(lines["up"]), int(lines["down"])) == expected


def test_ramp_length():
    assert ramps(8, 60, 20, 30) == pytest.approx((np.exp(-5 * 0.6**2), 1))
    for length in (1, 4, 20, 60):
        up, down = ramps(0, 100, length, length)[0], ramps(100, 100, length, length)[1]
        assert (up, down) == pytest.approx((np.exp(-5), np.exp(-7.5)))
    assert ramps(0, 3, 0, 0) == ramps(2, 3, 0, 0) == (1, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return (folder, run directory, printed text) of a finished run of two epochs."""
    folder = tmp_path_factory.mktemp("mri")
    write_set(str(folder / "ixi_train.pkl"), 3, seed=0)
    write_set(str(folder / "ixi_valid.pkl"), 2, seed=10)
    words = [sys.executable, os.path.abspath("config_mri.py"), "--num-epochs", "2", "--minibatch-size", "2"]
    words += ["--data-dir", str(folder)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    run_dir = folder / "results" / "00000-mri-ixi_s-n2n_-ep2-lr0.001000-Cbs0.025000-At64-Pfspec-1gpu-L"
    return folder, str(run_dir), done.stdout


def test_output(run):
    folder, _, out = run
    lines = out.splitlines()
    expected = [
        "dnnlib: Running train_mri.train() on localhost...",
        "Loading training set.",
        f"Loading dataset from {folder}/ixi_train.pkl",
        f"Loading dataset from {folder}/ixi_valid.pkl",
        "Bernoulli probability at edge = 0.02500",
        "Average Bernoulli probability = 0.10477",
    ]
    assert lines[:6] == expected
    epoch = r"Epoch   (\d)/2: time=[ \d]{3,}\.\d{3}, train_loss=0\.\d{7}, test_db_clamped=\d+\.\d{5}, lr=0\.001000"
    assert [re.fullmatch(epoch, line)[1] for line in lines if line.startswith("Epoch")] == ["0", "1"]
    i = lines.index("Saving final network weights.")
    assert lines[i + 1] == "Resetting random seed and saving a bunch of example images."


def test_files(run):
    _, run_dir, _ = run
    names = set(os.listdir(run_dir))
    assert {"example_train.png", "img00000.png", "img00001.png", "final00000.png", "final00001.png"} <= names
    assert {"network-snapshot-00000.pkl", "network-final.pkl", "psnr.txt", "_finished.txt"} <= names
    assert Image.open(os.path.join(run_dir, "img00001.png")).size == (1020, 510)
    lines = open(os.path.join(run_dir, "psnr.txt")).read().splitlines()
    assert len(lines) == 2 and re.fullmatch(r"  1: \d+\.\d{5} \d+\.\d{5} \d+\.\d{5}", lines[1])
    final = safe_pickle.load(os.path.join(run_dir, "network-final.pkl"))
    layer = {f"dec_conv1/{v}{slot}" for v in "Wb" for slot in ("", "/Adam", "/Adam_1")}
    assert layer | {"beta1_power", "beta2_power"} <= set(final) and len(final) == 36 * 3 + 2


def test_tensorboard(run):
    events = EventAccumulator(run[1])
    events.Reload()
    scalars = ["Loss", "Learning_rate", "test_db_clamped", "Timing/sec_per_eval"]
    for tag in [*scalars, "xCustomScalars/Learning_rate/margin_lo"]:
        assert [p.step for p in events.Scalars(tag)] == [0, 1]
    assert events.Tags()["images"]
    assert {"data", "loss", "optimizer"} <= {node.name.split("/")[0] for node in events.Graph().node}


@pytest.mark.parametrize("suffix", ["pkl", "safetensors"])
def test_load(run, tmp_path, suffix):
    values = safe_pickle.load(os.path.join(run[1], "network-final.pkl"))
    path = str(tmp_path / f"network.{suffix}")
    with tf.Graph().as_default(), tflib.create_session() as session:
        model = Model("fspec")
        session.run(tf.global_variables_initializer())
        tflib.save_arrays({f"{name}:0": value for name, value in values.items()}, path)
        model.load(path)
        np.testing.assert_array_equal(model.network.get_values()["dec_conv3b/W"], values["dec_conv3b/W"])
        for mistake, message in [
            ({"enc_conv0/weight": values["enc_conv0/W"]}, "lacks dec_conv1/W, .*; it has enc_conv0/weight$"),
            ({n: v for n, v in values.items() if n != "enc_conv0/W"}, "lacks enc_conv0/W"),
            (values | {"enc_conv0/b": np.zeros(3, np.float32)}, r"enc_conv0/b is \[3\] there, \[48\] here"),
        ]:
            tflib.save_arrays(mistake, path)
            with pytest.raises(dnnlib.UserError, match=message):
                model.load(path)


def two_layers(x, dtype):
    x = x[..., None]
    for index, channels in enumerate((8, 1)):
        shape = [3, 3, x.shape[-1], channels]
        kernel = tf.get_variable(
            f"conv{index}/W", initializer=tf.random.stateless_normal(shape, [1, index], stddev=0.3)
        )
        x = layers.conv2d(
            x, kernel, tf.get_variable(f"conv{index}/b", [channels], initializer=tf.zeros_initializer()), 0.1
        )
    return x[..., 0]


def test_devices_and_parts():
    """Two devices and two microbatches give the gradients of one pass."""
    results = []
    for devices, parts in ((["/cpu:0"], 1), (["/cpu:0", "/cpu:1"], 1), (["/cpu:0"], 2)):
        with tf.Graph().as_default(), tflib.create_session(num_cpu_devices=2) as session:
            net = tflib.Network("two_layers", two_layers, [None, 255, 255], tf.float32)
            x = tf.constant(np.random.default_rng(0).uniform(-0.5, 0.5, [2, 255, 255]).astype(np.float32))
            optimizer = tflib.Optimizer(1e-3, beta1=0.9, beta2=0.99, epsilon=1e-8)
            step = optimizer.minimize(lambda x: tf.reduce_mean(tf.square(net.get_output_for(x))), [x], devices, parts)  # noqa: B023
            session.run(tf.global_variables_initializer())
            loss = session.run(step)[0]
            moments = [optimizer.adam.get_slot(v, "m") for v in net.vars.values()]  # (1 - beta1) times the gradients.
            results.append([loss, *session.run(moments)])
    for one, two_devices, two_parts in zip(*results):
        np.testing.assert_allclose(one, two_devices, rtol=0, atol=1e-3 * np.abs(one).max())
        np.testing.assert_array_equal(two_devices, two_parts)
