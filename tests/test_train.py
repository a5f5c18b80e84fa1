"""Tests of training on images: the schedule, and whole runs."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import tifffile
from conftest import GOLDEN_DIR, smooth_image
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import config
import dnnlib
from dnnlib import tflib
from dnnlib.tflib import tf
from imaging.scale import Scale
from records import tfrecords
from train import crop_weights, decay_at, learning_rate_at

SHORT = ["--iterations", 4, "--eval-interval", 2, "--minibatch-size", 2, "--crop-size", 32]


def test_golden_learning_rates():
    for iteration, count, part, base, rate in np.load(os.path.join(GOLDEN_DIR, "schedules.npz"))["image_lr"]:
        assert learning_rate_at(iteration, count, part, base) == pytest.approx(rate, rel=1e-12, abs=1e-18)


def test_ema_decay():
    assert np.prod([decay_at(i, 0.999) for i in range(100)]) < 1e-9
    assert decay_at(10**5, 0.999) == 0.999 and decay_at(10**5, 0) == 0


def test_crop_weights():
    rng = np.random.default_rng(0)
    strengths = np.array([0, 25, 100, 500])[:, None, None, None] / 255
    clean = np.zeros([4, 3, 64, 64], np.float32)
    with tf.Graph().as_default(), tflib.create_session() as session:
        noisy, output = (clean + strengths * rng.standard_normal(clean.shape)).astype(np.float32), tf.constant(clean)
        weights = crop_weights(noisy, output)
        assert tf.gradients(weights, output) == [None]
        expected = 25 / np.hypot([0, 25, 100, 500], 5)
        np.testing.assert_allclose(session.run(weights), expected[:, None, None, None], rtol=0.03)


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos, training_file):
    """Return (run directory, printed text) of a short finished run, started as a user starts it."""
    folder = tmp_path_factory.mktemp("run")
    words = [sys.executable, os.path.abspath("config.py"), "--desc", "test", "--run-dir-root", str(folder / "results")]
    words += ["train", "--train-tfrecords", training_file, "--validation-dir", str(photos), *map(str, SHORT)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # TensorFlow prints nothing.
    return str(folder / "results" / "00000-autoencoder-test-1gpu-L-n2n"), done.stdout


def test_output(run):
    _, out = run
    lines = out.splitlines()
    assert lines[0] == "dnnlib: Running train.train() on localhost..."
    took = r"(?:\d+m )?\d+s"
    assert re.fullmatch(rf"dnnlib: Finished train\.train\(\) in {took}\.", lines[-1])
    assert re.fullmatch(rf"Elapsed time: {took}", lines[-2])
    iterations = rf"iter (\d+) {{9}} time {took} +sec/eval [\d.]+ +sec/iter [\d.]+ +maintenance [\d.]+ *"
    evaluations = [re.fullmatch(iterations, line) for line in lines if line.startswith("iter ")]
    assert [e[1] for e in evaluations] == ["0", "2", "4"]
    assert len(re.findall(r"^Average PSNR: \d+\.\d\d$", out, re.M)) == 3


def test_files(run):
    run_dir, out = run
    names = set(os.listdir(run_dir))
    assert {
        "log.txt",
        "config.txt",
        "run.txt",
        "submit_config.txt",
        "submit_config.pkl",
        "src",
        "_finished.txt",
    } <= names
    batches = {f"img_{iteration}_{kind}.png" for iteration in (0, 2, 4) for kind in ("x_aug", "y", "y_pred")}
    assert {"network_final.pickle", *batches} <= names
    assert {"img_0_val_0_orig.png", "img_0_val_0_noisy.png", "img_0_val_0_pred.png", "img_4_val_2_pred.png"} <= names
    assert not {"_failed.txt", "img_4_val_0_orig.png"} & names
    assert open(os.path.join(run_dir, "log.txt")).read() == out
    assert {"config.py", "train.py", "dnnlib"} <= set(os.listdir(os.path.join(run_dir, "src")))
    settings = ast.literal_eval(open(os.path.join(run_dir, "submit_config.txt")).read())
    assert settings["run_func_kwargs"]["noise_settings"] == {"train_sigma": (0.0, 50.0), "sigma": 25.0}


def test_tensorboard(run):
    events = EventAccumulator(run[0], size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    always = {"PSNR_avg_psnr", "Timing/iter", "Timing/total_sec", "Timing/maintenance_sec"}
    trained = {"Loss", "Train/learning_rate", "Train/overflow_frequency", "Timing/sec_per_eval", "Timing/sec_per_iter"}
    for tag in always | trained:
        points = events.Scalars(tag)
        assert [p.step for p in points] == ([0, 2, 4] if tag in always else [2, 4]), tag
        assert all(np.isfinite(p.value) for p in points), tag
    margins = {f"xCustomScalars/{tag}/margin_{side}" for tag in always | trained for side in ("lo", "hi")}
    assert set(tags["scalars"]) == always | trained | margins
    assert "custom_scalars__config__" in tags["tensors"]
    assert {"data", "loss", "optimizer"} <= {node.name.split("/")[0] for node in events.Graph().node}
    assert "Validation/0_noisy_denoised_clean" in tags["images"]


def values(run_dir):
    return tflib.load_snapshot(os.path.join(run_dir, "network_final.pickle")).variables


def test_repeated_run(run):
    done = subprocess.run(
        [sys.executable, "-m", "dnnlib.submission", run[0]], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    again = run[0].replace("00000", "00001")
    for name, value in values(run[0]).items():
        np.testing.assert_array_equal(value, values(again)[name], err_msg=name)


@pytest.fixture
def train(tmp_path, monkeypatch, training_file):
    """Train in this process with the given options; return the run directory."""

    def run(*options):
        monkeypatch.chdir(tmp_path)
        config.main(["train", *map(str, ["--train-tfrecords", training_file, *SHORT, *options])])
        return "results/00000-autoencoder-1gpu-L-n2n"

    return run


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize("noise", ["bernoulli", "text", "impulse", "poisson-gaussian"])
def test_every_noise(train, photos, noise):
    run_dir = train("--noise", noise, "--validation-dir", photos)
    events = EventAccumulator(run_dir)
    events.Reload()
    assert all(point.value == 0 for point in events.Scalars("Train/overflow_frequency"))
    assert all(0 < point.value < 2 for point in events.Scalars("Loss"))
    snapshot = f"{run_dir}/network_final.pickle"
    config.main(["validate", "--noise", noise, "--dataset-dir", str(photos), "--network-snapshot", snapshot])
    measured = open("results/00001-autoencoder-validate/log.txt").read()
    assert re.findall(r"^Average PSNR: .*$", measured, re.M)[-1] in open(f"{run_dir}/log.txt").read()


@pytest.mark.usefixtures("small_network")
def test_noisy_shots(train, noisy_shots, shots_file):
    words = ["--noise", "none", "--train-tfrecords", shots_file]
    run_dir = train(*words, "--validation-dir", noisy_shots / "a", "--reference-dir", noisy_shots / "clean")
    log = open(f"{run_dir}/log.txt").read()
    assert f"Training on 12 noisy shots of 4 scenes of {shots_file}." in log
    assert len(re.findall(r"^Average PSNR: \d+\.\d\d$", log, re.M)) == 3
    names = set(os.listdir(run_dir))
    previews = {f"img_0_val_0_{kind}.png" for kind in ("orig", "noisy", "pred")}
    assert {"network_final.pickle", "network_best.pickle", "img_4_y.png"} | previews <= names


def test_load_network(train, photos, snapshot):
    """A run starts from the named network and saves the EMA of its weights."""
    words = ["--load-network", snapshot, "--moving-average", 0.999, "--learning-rate", 0.1]
    run_dir = train("--validation-dir", photos, *words, "--iterations", 2)
    log = open(f"{run_dir}/log.txt").read()
    assert f"Starting from {snapshot}." in log
    first, *others = map(float, re.findall(r"^Average PSNR: (.*)$", log, re.M))
    assert max(others) < first - 1  # The steps are far too large, so the initial network is the best.
    start, end = (tf.train.load_checkpoint(f"{run_dir}/checkpoints/step-{step}") for step in (0, 2))
    saved, best = (tflib.load_snapshot(f"{run_dir}/network_{name}.pickle").variables for name in ("final", "best"))
    for name, value in tflib.load_snapshot(snapshot).variables.items():
        for scope in ("autoencoder", "moving_average"):
            np.testing.assert_array_equal(start.get_tensor(f"{scope}/{name}"), value, err_msg=name)
        np.testing.assert_array_equal(best[name], value, err_msg=name)
        np.testing.assert_array_equal(saved[name], end.get_tensor(f"moving_average/{name}"), err_msg=name)


def test_one_channel(train, photos, grey_snapshot, tmp_path, capsys):
    """Training, measuring, comparing and exporting in greyscale; the snapshot says the number of channels."""
    words = ["--channels", 1, "--iterations", 1, "--load-network", grey_snapshot, "--learning-rate", 1e-9]
    run_dir = train("--validation-dir", photos, *words)
    state = tflib.load_snapshot(f"{run_dir}/network_final.pickle")
    assert state.static_kwargs == {"channels": 1} and state.variables["enc_conv0/weight"].shape == (3, 3, 1, 48)
    clean = Image.open(f"{run_dir}/img_0_val_0_orig.png")
    assert clean.mode == "L" and np.array_equal(clean, Image.open(photos / "photo0.png").convert("L"))
    noisy, denoised = (np.asarray(Image.open(f"{run_dir}/img_0_val_0_{kind}.png"), float) for kind in ("noisy", "pred"))
    kept = (noisy > 0) & (noisy < 255)  # The network saw values beyond, too.
    np.testing.assert_allclose(denoised[kept] - 127.5, (noisy[kept] - 127.5) / 2, atol=3)

    config.main(["validate", "--dataset-dir", str(photos), "--network-snapshot", run_dir])
    psnr = re.findall(r"^Average PSNR: .*$", capsys.readouterr().out, re.M)
    assert psnr == psnr[:1] * 3  # At iterations 0 and 1, and of `validate`.
    compare = ["compare", "--image", str(photos / "photo0.png"), "--out", "sheet.png"]
    config.main([*compare, f"gaussian={run_dir}/network_final.pickle"])
    with pytest.raises(dnnlib.UserError, match="--noise camera: simulates cameras in colour"):
        config.main([*compare, f"camera={run_dir}/network_final.pickle"])
    config.main(["export", "--network-snapshot", run_dir, "--out", "grey.safetensors"])
    other = tflib.load_snapshot("grey.safetensors")
    assert other.static_kwargs == {"channels": 1} and other.variables.keys() == state.variables.keys()
    with pytest.raises(SystemExit):
        train("--validation-dir", photos, "--load-network", "grey.safetensors")
    assert "grey.safetensors: is a network of --channels 1, not of 3" in capsys.readouterr().err


def test_sixteen_bits_from_data_set_to_inference(train, grey_snapshot, tmp_path, capsys):
    """A series of 12 bits in 16 is trained on, measured in 12 bits, and denoised with its bits and no option."""
    rng = np.random.default_rng(0)
    clean = 300 + 10 * smooth_image(64, 64, seed=0)[:1].astype(np.uint16)
    shots = [(clean + rng.normal(0, 100, clean.shape)).astype(np.uint16) for _ in range(3)]
    tfrecords.write_shots(tmp_path / "series.tfrecords", ((shot, 0) for shot in shots), Scale("uint16", 0, 4095))
    for name, samples in {"noisy": shots[0], "clean": clean}.items():
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", samples[0])
    words = ["--noise", "none", "--channels", 1, "--load-network", grey_snapshot, "--learning-rate", 1e-9]
    words += ["--iterations", 1, "--train-tfrecords", "series.tfrecords", "--precision", "float32"]
    run_dir = train(*words, "--validation-dir", "noisy", "--reference-dir", "clean")
    half = (shots[0] - 2047.5) / 2 + 2047.5  # What this network makes of its input.
    psnr = 10 * np.log10(4095**2 / np.mean((np.rint(half) - clean) ** 2))
    out = capsys.readouterr().out
    assert out.count(f"Average PSNR: {psnr:.2f}") == 2
    assert "uint16, 0 is black and 4095 white" in out

    snapshot = f"{run_dir}/network_final.pickle"
    assert tflib.load_snapshot(snapshot).data == {"samples": {"dtype": "uint16", "black": 0.0, "white": 4095.0}}
    config.main(["export", "--network-snapshot", snapshot, "--out", "a.safetensors"])
    config.main(["export", "--network-snapshot", snapshot, "--out", "a.onnx"])
    samples = onnxruntime.InferenceSession("a.onnx").get_modelmeta().custom_metadata_map["samples"]
    assert json.loads(samples) == {"dtype": "uint16", "black": 0, "white": 4095}
    stack = np.concatenate(shots)
    tifffile.imwrite("stack.tif", stack, photometric="minisblack")
    config.main(["infer-image", "--image", "stack.tif", "--out", "out.tif", "--network-snapshot", "a.safetensors"])
    denoised = tifffile.imread("out.tif")
    assert denoised.dtype == np.uint16
    np.testing.assert_allclose(denoised, (stack - 2047.5) / 2 + 2047.5, atol=0.6)

    args = ["validate", "--noise=none", "--dataset-dir=noisy", "--reference-dir=clean", "--network-snapshot", snapshot]
    config.main([*args, "--precision", "float32"])
    assert f"Average PSNR: {psnr:.2f}" in capsys.readouterr().out
    config.main([*args, "--range", "0", "65535"])
    out = capsys.readouterr().out
    assert float(re.search(r"Average PSNR: (.*)", out)[1]) == pytest.approx(12.5, abs=0.1)  # 0 becomes 65535 / 4.


@pytest.mark.usefixtures("small_network")
def test_noisy_shots_alone(train, noisy_shots, shots_file):
    run_dir = train("--noise", "none", "--validation-dir", noisy_shots / "a", "--train-tfrecords", shots_file)
    log = open(f"{run_dir}/log.txt").read()
    assert "PSNR" not in log and re.search(r"^iter 4 ", log, re.M)
    names = set(os.listdir(run_dir))
    assert {"network_final.pickle", "img_4_val_2_pred.png", "img_0_val_0_noisy.png", "img_4_x_aug.png"} <= names
    assert not {"network_best.pickle", "img_0_val_0_orig.png"} & names
    events = EventAccumulator(run_dir)
    events.Reload()
    assert {"Validation/0_noisy_denoised", "Training/input_output_target"} <= set(events.Tags()["images"])


@pytest.mark.usefixtures("small_network")
def test_deleted_run_directory(train, photos, monkeypatch, capsys):
    run_dir = "results/00000-autoencoder-1gpu-L-n2n"
    monkeypatch.setattr(dnnlib.RunContext, "step", lambda ctx, iteration: shutil.rmtree(run_dir, ignore_errors=True))
    with pytest.raises(SystemExit) as end:
        train("--validation-dir", photos)
    assert end.value.code == 1 and not os.path.exists(run_dir)
    assert re.match(rf"error: {run_dir}\S*: no such f.*\ndnnlib: This run failed.*\n$", capsys.readouterr().err)


@pytest.mark.usefixtures("small_network")
def test_divergence(train, photos, monkeypatch):
    monkeypatch.setattr(tflib.optimizer, "MOST_SKIPPED", 1)
    with pytest.raises(SystemExit):
        words = ["--learning-rate", 1e30, "--iterations", 20, "--eval-interval", 20]
        train("--validation-dir", photos, *words)
    assert "2 updates in a row were not finite" in open("results/00000-autoencoder-1gpu-L-n2n/log.txt").read()
