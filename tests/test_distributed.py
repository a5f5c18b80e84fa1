"""Runs of several workers: they equal runs of one worker, stop together, and name what is wrong."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import write_set
from training_runs import RUN_DIR, finish, points, train, wait_for

import config
import config_mri
import corruption
import dataset
import dnnlib
from dnnlib import safe_pickle, submission, tflib
from dnnlib.submission import workers
from dnnlib.tflib import sockets, tf

MRI_NAME = "mri-ixi_s-n2n_-ep1-lr0.001000-Cbs0.025000-At64-Pfspec-1gpu-L"


@pytest.fixture
def options(photos, training_file):
    words = ["--train-tfrecords", training_file, "--validation-dir", photos, "--crop-size", 32, "--minibatch-size", 4]
    return [*words, "--checkpoint-minutes", 0.003]


def worker_process(parent, index):
    """Return the process id of a worker of `--local-workers`."""
    for child in open(f"/proc/{parent.pid}/task/{parent.pid}/children").read().split():
        variables = open(f"/proc/{child}/environ", "rb").read().split(b"\0")
        (config,) = (v for v in variables if v.startswith(b"TF_CONFIG="))
        if json.loads(config.split(b"=", 1)[1])["task"]["index"] == index:
            return int(child)
    raise AssertionError(f"there is no worker {index}")


def test_two_workers_equal_one(tmp_path, options, monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")  # Bitwise equality needs as many threads in both runs.
    options += ["--iterations", 4, "--eval-interval", 2, "--microbatches", 2, "--precision", "float32"]
    finish(train(tmp_path, *options, "--local-workers", 2), tmp_path)
    finish(train(tmp_path, *options), tmp_path)
    runs = [tmp_path / "results" / f"0000{i}-autoencoder-1gpu-L-n2n" for i in (0, 1)]
    two, one = (tflib.load_snapshot(str(run / "network_final.pickle")).variables for run in runs)
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)
    for (_, a), (_, b) in zip(*(points(run)["Loss"] for run in runs), strict=True):
        assert a == pytest.approx(b, rel=1e-6)
    log = (runs[0] / "log.txt").read_text()
    assert "Sharing the work with 1 more worker" in log and log.count("iter 2 ") == 1
    assert len(os.listdir(tmp_path / "results")) == 2  # The second worker makes no directory.


def test_two_mri_workers_equal_one(tmp_path, monkeypatch):
    write_set(str(tmp_path / "ixi_train.pkl"), 4, seed=0)
    write_set(str(tmp_path / "ixi_valid.pkl"), 1, seed=10)
    options = ["--data-dir", ".", "--num-epochs", 1, "--minibatch-size", 2, "--precision", "float32"]
    finish(train(tmp_path, *options, "--local-workers", 2, script="config_mri.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    config_mri.main(["train", *map(str, options)])
    runs = [tmp_path / "results" / f"0000{i}-{MRI_NAME}" for i in (0, 1)]
    two, one = (safe_pickle.load(str(run / "network-final.pkl")) for run in runs)
    losses = [points(run)["Loss"][0][1] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, value in one.items():
        if name.endswith("/Adam_1"):  # The moment of the last bias is 0 up to rounding: the mean is always known.
            np.testing.assert_allclose(two[name], value, rtol=0, atol=1e-2 * value.max() + 1e-15, err_msg=name)


def test_stopped_and_killed_workers(tmp_path, options, monkeypatch):
    """SIGTERM to the second worker, resumed with two in bfloat16; SIGKILL of it, resumed with one."""
    out = tmp_path / "out"
    options += ["--precision", "bfloat16", "--iterations", 100000, "--eval-interval", 5]
    process = train(tmp_path, *options, "--local-workers", 2)
    wait_for(lambda: "iter 5 " in out.read_text(), process)
    os.kill(worker_process(process, 1), signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    match = re.search(r"stopped by another worker after iteration (\d+); go on with: python", out.read_text())
    assert submission.newest_checkpoint(str(tmp_path / RUN_DIR))[0] == int(match[1])
    assert "error:" not in out.read_text()

    process = train(tmp_path, "--resume", RUN_DIR, "--local-workers", 2)
    wait_for(lambda: f"iter {(int(match[1]) // 5 + 2) * 5} " in out.read_text(), process)
    os.kill(worker_process(process, 1), signal.SIGKILL)
    killed = time.time()
    assert process.wait(timeout=120) == 1
    assert time.time() - killed < 60
    line = rf"error: worker 1 \(127\.0\.0\.1:\d+\) is gone; go on with: python config\.py train --resume {RUN_DIR}"
    assert re.search(rf"^{line}$", out.read_text(), re.M) and "Traceback" not in out.read_text()
    step = submission.newest_checkpoint(str(tmp_path / RUN_DIR))[0]
    assert step > int(match[1])
    monkeypatch.chdir(tmp_path)
    config.main(["train", "--resume", RUN_DIR, "--iterations", str(step + 2)])
    assert f"Resumed after iteration {step}." in (tmp_path / RUN_DIR / "log.txt").read_text()


def test_workers_with_other_settings(tmp_path, options):
    addresses = ",".join(workers._free_addresses(2))
    processes = []
    for task, seed in enumerate((1, 2)):
        words = ["train", *options, "--workers", addresses, "--task", task, "--seed", seed, "--iterations", 2]
        words = [sys.executable, os.path.abspath("config.py"), *map(str, words)]
        processes.append(subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE))
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    address = re.escape(addresses.split(",")[1])
    message = rf"error: worker 1 \({address}\) has seed 2, the first worker 1"
    assert re.match(message, outputs[0][1].decode()) and outputs[1][0] == b""


def test_missing_worker(monkeypatch):
    one, other = workers._free_addresses(2)
    monkeypatch.setenv("TF_CONFIG", workers.Workers((one, other)).to_environment()["TF_CONFIG"])
    monkeypatch.setattr(tflib.Cluster, "_start_server", lambda cluster: None)
    cluster = tflib.Cluster(dnnlib.SubmitConfig(join_seconds=1, run_func_kwargs={}), "")
    with pytest.raises(dnnlib.UserError) as error:
        cluster.agree(0, {})
    assert str(error.value) == f"worker 1 ({other}) has not appeared within 1 seconds"


TWO = {"cluster": {"worker": ["127.0.0.1:2222", "127.0.0.1:2223"]}, "task": {"type": "worker", "index": 0}}


@pytest.mark.parametrize(
    "variable,words,message",
    [
        (None, ["--workers", "a:1,b:2"], "--workers and --task go together"),
        (None, ["--workers", "a:1,b", "--task", 0], "--workers: 'b' is not host:port"),
        (None, ["--workers", "a:1,a:1", "--task", 0], "--workers: names an address twice"),
        (None, ["--workers", "a:1,b:2", "--task", 2], "--workers: there is no worker 2 of 2; they count from 0"),
        (TWO, ["--local-workers", 2], "TF_CONFIG and --local-workers both say who the workers are"),
        (TWO, ["--minibatch-size", 3], "--minibatch-size 3 cannot be split evenly over 2 workers"),
        (None, ["--local-workers", 3], "--minibatch-size 4 cannot be split evenly over 3 workers"),
        (TWO, ["--microbatches", 5], "--minibatch-size 4 cannot be split evenly into 6 --microbatches"),
        ({"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}, [], "TF_CONFIG: does not name this worker"),
        ("[", [], "TF_CONFIG: does not name this worker in the form"),
        (TWO, ["--submit", "slurm"], "--submit slurm: its workers are tasks of the job, one for each of --nodes"),
        (None, ["--nodes", 2], "--nodes: goes with --submit slurm only"),
    ],
)
def test_mistakes_leave_no_directory(tmp_path, monkeypatch, options, variable, words, message):
    monkeypatch.chdir(tmp_path)
    if variable:
        monkeypatch.setenv("TF_CONFIG", variable if isinstance(variable, str) else json.dumps(variable))
    with pytest.raises(dnnlib.UserError) as error:
        config.main(["train", *map(str, [*options, *words])])
    assert str(error.value).startswith(message)
    assert not os.path.exists("results")


def test_chief_is_first(monkeypatch):
    task = {"cluster": {"chief": ["a:1"], "worker": ["b:2", "c:3"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    assert workers.Workers.from_environment() == workers.Workers(("a:1", "b:2", "c:3"), 2)


def test_shards_make_the_minibatch(training_file):
    def minibatches(part):
        with tf.Graph().as_default(), tflib.create_session() as session:
            tf.set_random_seed(0)
            data = dataset.TrainingData(training_file, 32, seed=1)
            noise = corruption.create("gaussian")
            batches = dataset.minibatches(data, noise, True, 6, 2, 4, part)
            iterator = tf.data.make_initializable_iterator(batches)
            following = iterator.get_next()
            session.run(iterator.initializer)
            return [session.run(following) for _ in range(2)]

    whole, parts = minibatches((0, 1)), [minibatches((w, 3)) for w in range(3)]
    for number in range(2):
        for field, value in enumerate(whole[number]):
            np.testing.assert_array_equal(value, np.concatenate([part[number][field] for part in parts]))


@pytest.mark.skipif(sys.platform != "linux", reason="packet filters exist on Linux only")
def test_port_is_open_at_its_address_only(monkeypatch):
    monkeypatch.setattr(sockets, "_TIMEOUT", 0.3)
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        assert sockets.listens(f"127.0.0.2:{port}")
        assert sockets.confine(f"127.0.0.1:{port}") is None
        assert sockets.listens(f"127.0.0.1:{port}") and not sockets.listens(f"127.0.0.2:{port}")
        assert "192.0.2.77 is not an address of this machine" in sockets.confine(f"192.0.2.77:{port}")


def test_slurm_job_resumes(tmp_path, options):
    """With submitit's local executor: two tasks, a notice that the time is out, and the rest of the run."""
    pytest.importorskip("submitit")
    words = ["--iterations", 100000, "--eval-interval", 5]
    words += ["--submit", "slurm", "--nodes", 2, "--slurm", "cluster=local"]
    finish(train(tmp_path, *options, *words), tmp_path)
    run_dir = tmp_path / RUN_DIR.replace("gpu-L", "gpu-S")
    log = run_dir / "log.txt"
    job = int(re.search(r"Submitted job (\d+) ", (tmp_path / "out").read_text())[1])
    try:
        until(lambda: "iter 5 " in log.read_text())
        for task in open(f"/proc/{job}/task/{job}/children").read().split():
            os.kill(int(task), signal.SIGUSR2)  # As SLURM does when the time is out.
        until(lambda: "Resumed after iteration" in log.read_text())
        step = int(re.search(r"Resumed after iteration (\d+)", log.read_text())[1])
        until(lambda: f"iter {(step // 5 + 1) * 5} " in log.read_text())
        assert step >= 5
    finally:
        (run_dir / "abort.txt").touch()
        until(lambda: (run_dir / "_stopped.txt").exists())
    assert "stopped by abort.txt" in log.read_text()


def until(condition):
    deadline = time.time() + 400
    while time.time() < deadline:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("waited in vain")
