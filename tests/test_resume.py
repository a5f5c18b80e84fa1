"""Runs that are interrupted and go on: their ends must be those of runs that never were."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train_mri import write_set

from dnnlib import safe_pickle, submission, tflib

KILLS = int(os.environ.get("KILLS", "2"))
ITERATIONS = 40 + 20 * KILLS
RUN_DIR = "results/00000-autoencoder-1gpu-L-n2n"


def train(folder, *options, script="config.py", **kwargs):
    """Starts a training in `folder`, its output in the file `out` there."""
    words = [sys.executable, os.path.abspath(script), "train", *map(str, options)]
    with open(folder / "out", "a") as out:
        return subprocess.Popen(words, cwd=folder, stdout=out, stderr=subprocess.STDOUT, **kwargs)


def finish(process, folder):
    assert process.wait(timeout=300) == 0, (folder / "out").read_text()


def wait_for(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended by itself"


def kill_at_random(folder, process, times_before, rng):
    """SIGKILL at any moment once the run trains: in an iteration, an evaluation or while a checkpoint is written."""

    def trains():
        first = folder / RUN_DIR / "checkpoints" / "step-0.json"  # Without it there is nothing to resume from.
        resumed = (folder / "out").read_text().count("Resumed after")
        return (times_before or first.exists()) and resumed == times_before

    wait_for(trains, process)
    time.sleep(rng.uniform(0, 1.5))
    process.kill()
    process.wait()


@pytest.fixture
def options(photos, training_file):
    words = ["--train-tfrecords", training_file, "--validation-dir", photos, "--iterations", ITERATIONS]
    return [*words, "--eval-interval", 7, "--minibatch-size", 2, "--crop-size", 32, "--checkpoint-minutes", 0.003]


def points(run_dir):
    events = EventAccumulator(str(run_dir))
    events.Reload()
    curves = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if not tag.startswith(("Timing", "xCustom"))}
    return {tag: [(p.step, p.value) for p in curve] for tag, curve in curves.items()}


@pytest.mark.parametrize("precision,moving_average,optimizer", [("float32", 0, "adam"), ("bfloat16", 0.9, "muon")])
def test_a_killed_and_resumed_run_ends_as_if_it_never_was(tmp_path, options, precision, moving_average, optimizer):
    options += ["--precision", precision, "--moving-average", moving_average, "--optimizer", optimizer]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    options += ["--noise", "impulse"]  # Its loss changes with the iteration.
    finish(train(whole, *options), whole)
    rng = random.Random(KILLS)
    process = train(killed, *options)
    for times_before in range(KILLS):
        kill_at_random(killed, process, times_before, rng)
        assert not os.path.exists(killed / RUN_DIR / "network_final.pickle")
        process = train(killed, "--resume", RUN_DIR)
    finish(process, killed)

    for name in ("network_final.pickle", "network_best.pickle"):
        a, b = (tflib.load_snapshot(str(folder / RUN_DIR / name)).variables for folder in (whole, killed))
        for variable, value in a.items():
            np.testing.assert_array_equal(value, b[variable], err_msg=f"{name} {variable}")
    # No gap, no point twice, Loss averaged over the same steps.
    assert points(whole / RUN_DIR) == points(killed / RUN_DIR)
    iterations = re.findall(r"^iter (\d+)", (killed / RUN_DIR / "log.txt").read_text(), re.M)
    assert iterations == [str(i) for i in [*range(0, ITERATIONS, 7), ITERATIONS]]
    assert len(submission.resume.checkpoint_steps(str(killed / RUN_DIR))) == 2
    assert not os.path.exists(killed / RUN_DIR / "_failed.txt")


def test_a_signal_stops_a_run_at_a_checkpoint(tmp_path, options):
    words, stopped = [*options, "--iterations", 100000], 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process, evaluation = train(tmp_path, *words), f"iter {stopped // 7 * 7 + 7} "
        wait_for(lambda text=evaluation: text in (tmp_path / "out").read_text(), process)
        process.send_signal(number)
        assert process.wait(timeout=60) == 1
        message = rf"stopped by {number.name} after iteration (\d+); go on with"
        stopped = int(re.search(message, (tmp_path / "out").read_text())[1])
        assert submission.newest_checkpoint(str(tmp_path / RUN_DIR))[0] == stopped
        words = ["--resume", RUN_DIR]
    assert not os.path.exists(tmp_path / RUN_DIR / "network_final.pickle")
    finish(train(tmp_path, *words, "--iterations", stopped + 3), tmp_path)


@pytest.mark.parametrize(
    "given,message",
    [
        (["--seed", 3], "--seed 3: the run to be resumed has 1000; leave it out"),
        (["--noise=poisson"], "--noise poisson: the run to be resumed has 'gaussian'; leave it out"),
        (["--desc", "x"], "--desc x: the run to be resumed was started without it; leave it out"),
        (["--seed", 1000], "has no checkpoint to resume from; start the run anew"),
    ],
)
def test_settings_come_from_the_run(tmp_path, options, given, message):
    process, run_dir = train(tmp_path, *options), tmp_path / "results" / "00000-autoencoder-1gpu-L-n2n"
    wait_for(lambda: os.path.exists(run_dir / "submit_config.txt"), process)
    process.kill()
    process.wait()
    process = train(tmp_path, "--resume", run_dir, *given)
    assert process.wait(timeout=60) == 1
    assert message in (tmp_path / "out").read_text().splitlines()[-1]


def test_mri_runs_resume_within_an_epoch(tmp_path):
    write_set(str(tmp_path / "ixi_train.pkl"), 3, seed=0)
    write_set(str(tmp_path / "ixi_valid.pkl"), 1, seed=10)
    options = ["--data-dir", ".", "--num-epochs", 2, "--minibatch-size", 1, "--checkpoint-minutes", 0.001]
    process = train(tmp_path, *options, script="config_mri.py")
    name = "mri-ixi_s-n2n_-ep2-lr0.001000-Cbs0.025000-At64-Pfspec-1gpu-L"
    run_dir = tmp_path / "results" / f"00000-{name}"
    wait_for(lambda: 2 in submission.resume.checkpoint_steps(str(run_dir)), process)
    process.kill()
    process.wait()
    finish(train(tmp_path, "--resume", run_dir, script="config_mri.py"), tmp_path)
    finish(train(tmp_path, *options, script="config_mri.py"), tmp_path)
    a, b = (safe_pickle.load(str(tmp_path / "results" / f"0000{i}-{name}" / "network-final.pkl")) for i in (0, 1))
    for variable, value in a.items():
        np.testing.assert_array_equal(value, b[variable], err_msg=variable)
    assert points(run_dir) == points(tmp_path / "results" / f"00001-{name}")
