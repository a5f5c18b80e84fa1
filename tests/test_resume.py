"""Runs that are stopped, killed and resumed: they end as if they had never been interrupted."""

import glob
import json
import os
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest
from conftest import write_set
from training_runs import RUN_DIR, finish, points, train, wait_for

import config
import config_mri
import dnnlib
from dnnlib import safe_pickle, submission, tflib
from imaging import images, rgb_files
from records import tfrecords

KILLS = int(os.environ.get("KILLS", "2"))
ITERATIONS = 40 + 20 * KILLS


def kill_at_random(folder, process, times_before, rng):
    """Send SIGKILL at a random moment of training: in an iteration, an evaluation or the writing of a checkpoint."""

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


def test_killed_run(tmp_path, monkeypatch, options):
    options += ["--precision", "bfloat16", "--moving-average", 0.9, "--optimizer", "muon"]
    options += ["--noise", "impulse"]  # Its loss changes with the iteration.
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    rng = random.Random(KILLS)
    process = train(killed, *options)
    for times_before in range(KILLS):
        kill_at_random(killed, process, times_before, rng)
        assert not os.path.exists(killed / RUN_DIR / "network_final.pickle")
        process = train(killed, "--resume", RUN_DIR)
    finish(process, killed)
    monkeypatch.chdir(whole)
    config.main(["train", *map(str, options)])

    for name in ("network_final.pickle", "network_best.pickle"):
        a, b = (tflib.load_snapshot(str(folder / RUN_DIR / name)).variables for folder in (whole, killed))
        for variable, value in a.items():
            np.testing.assert_array_equal(value, b[variable], err_msg=f"{name} {variable}")
    # No gap, no point twice, and Loss is averaged over the same steps.
    assert points(whole / RUN_DIR) == points(killed / RUN_DIR)
    iterations = re.findall(r"^iter (\d+)", (killed / RUN_DIR / "log.txt").read_text(), re.M)
    assert iterations == [str(i) for i in [*range(0, ITERATIONS, 7), ITERATIONS]]
    assert len(submission.resume.checkpoint_steps(str(killed / RUN_DIR))) == 2
    assert not os.path.exists(killed / RUN_DIR / "_failed.txt")


def test_killed_mri_run(tmp_path, monkeypatch):
    write_set(str(tmp_path / "ixi_train.pkl"), 3, seed=0)
    write_set(str(tmp_path / "ixi_valid.pkl"), 1, seed=10)
    options = ["--data-dir", ".", "--num-epochs", 2, "--minibatch-size", 1, "--checkpoint-minutes", 0.001]
    process = train(tmp_path, *options, script="config_mri.py")
    name = "mri-ixi_s-n2n_-ep2-lr0.001000-Cbs0.025000-At64-Pfspec-1gpu-L"
    run_dir = tmp_path / "results" / f"00000-{name}"
    wait_for(lambda: 2 in submission.resume.checkpoint_steps(str(run_dir)), process)  # Within the first epoch.
    process.kill()
    process.wait()
    (tmp_path / "moved").mkdir()
    for file in ("ixi_train.pkl", "ixi_valid.pkl"):
        os.rename(tmp_path / file, tmp_path / "moved" / file)
    options[1] = "moved"
    finish(train(tmp_path, "--resume", run_dir, *options[:2], script="config_mri.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    config_mri.main(["train", *map(str, options)])
    a, b = (safe_pickle.load(str(tmp_path / "results" / f"0000{i}-{name}" / "network-final.pkl")) for i in (0, 1))
    for variable, value in a.items():
        np.testing.assert_array_equal(value, b[variable], err_msg=variable)
    assert points(run_dir) == points(tmp_path / "results" / f"00001-{name}")


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize("reason", ["SIGINT", "SIGTERM", "abort.txt"])
def test_stopped_run(tmp_path, monkeypatch, capsys, options, reason):
    def ask_in_iteration_4(ctx, iteration):
        if iteration == 3 and reason == "abort.txt":
            open(ctx.path("abort.txt"), "w").close()
        elif iteration == 3:
            os.kill(os.getpid(), getattr(signal, reason))

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(dnnlib.RunContext, "step", ask_in_iteration_4)
        config.main(["train", *map(str, options)])
    assert end.value.code == 1
    message = f"stopped by {reason} after iteration 4; go on with: python config.py train --resume {RUN_DIR}\n"
    assert message in capsys.readouterr().err
    assert submission.newest_checkpoint(RUN_DIR)[0] == 4
    assert "_stopped.txt" in os.listdir(RUN_DIR) and "status: stopped" in open(f"{RUN_DIR}/run.txt").read()
    assert not {"network_final.pickle", "_finished.txt", "_failed.txt"} & set(os.listdir(RUN_DIR))
    config.main(["train", "--resume", RUN_DIR, "--iterations", "6"])
    assert not {"_stopped.txt", "abort.txt"} & set(os.listdir(RUN_DIR))
    assert os.path.exists(f"{RUN_DIR}/network_final.pickle")


@pytest.mark.usefixtures("small_network")
def test_changes_on_resuming(tmp_path, monkeypatch, capsys, photos):
    def write(name, brighter):
        pixels = [rgb_files.read_rgb(path).copy() for path in images.list_images(photos)]
        pixels[-1][0, 0, 0] += brighter
        tfrecords.write_images(name, pixels)

    def refused(*words):
        before = {path: os.stat(path).st_mtime_ns for path in glob.glob(f"{run_dir}/**", recursive=True)}
        with pytest.raises(dnnlib.UserError) as error:
            config.main(["train", "--resume", run_dir, *words])
        assert before == {path: os.stat(path).st_mtime_ns for path in glob.glob(f"{run_dir}/**", recursive=True)}
        return str(error.value)

    monkeypatch.chdir(tmp_path)
    write("train.tfrecords", brighter=0)
    options = ["--train-tfrecords", "train.tfrecords", "--validation-dir", str(photos), "--iterations", "2"]
    config.main(["train", "--desc", "x", *options, "--minibatch-size", "1", "--crop-size", "32"])
    run_dir = "results/00000-autoencoder-x-1gpu-L-n2n"
    further = f"to train its network further, start a run with --load-network {run_dir}/network_final.pickle"
    assert refused("--iterations", "9") == f"{run_dir}: is finished; {further}"
    os.remove(f"{run_dir}/_finished.txt")  # As if it had been killed.
    assert refused("--seed", "3") == "--seed 3: the run to be resumed has 1000; leave it out"
    assert refused("--desc", "x") == "--desc x: a run that is resumed keeps its own; leave it out"
    assert (
        refused("--load-network", "a") == "--load-network a: the run to be resumed was started without it; leave it out"
    )
    for dry_run in ([], ["--dry-run"]):
        assert refused("--iterations", "1", *dry_run) == "--iterations 1: the run has done 2 already; name more"

    os.rename("train.tfrecords", "moved.tfrecords")
    missing = "train.tfrecords: no such file or folder; if it was moved, name its new place by --train-tfrecords"
    assert refused() == missing
    write("other.tfrecords", brighter=1)
    with pytest.raises(SystemExit):
        config.main(["train", "--resume", run_dir, "--train-tfrecords", "other.tfrecords", "--iterations", "3"])
    assert "other.tfrecords: not the data that the run to be resumed was trained on" in capsys.readouterr().err
    assert refused() == missing
    moved = ["--train-tfrecords", "moved.tfrecords", "--iterations", "3", "--num-gpus", "2"]
    checkpoint, skipped = f"{run_dir}/checkpoints/step-2.json", []
    with open(checkpoint) as f:
        record = json.load(f)
    record["state"] |= {"elapsed": 7200, "skipped_in_a_row": 5}
    with open(checkpoint, "w") as f:
        json.dump(record, f)
    monkeypatch.setattr(tflib.training.SkippedUpdates, "count", lambda updates, *step: skipped.append(updates.in_a_row))
    config.main(["train", "--resume", run_dir, *moved])
    assert skipped == [5]
    assert re.search(r"^Elapsed time: 2h 0\dm", capsys.readouterr().out, re.M)
    settings = submission.load_submit_config(run_dir)
    assert settings.run_func_kwargs.train_tfrecords == "moved.tfrecords" and settings.num_gpus == 2
    shutil.rmtree(f"{run_dir}/checkpoints")
    os.remove(f"{run_dir}/_finished.txt")
    assert refused() == f"{run_dir}: has no checkpoint to resume from; start the run anew"
