"""The program without the calls that Windows lacks."""

import os
import signal

import pytest

import config
import dataset_tool_tf
from dnnlib.submission import submit

fcntl = pytest.importorskip("fcntl")


@pytest.fixture
def windows(monkeypatch):
    """Take away or restrict what Windows lacks or restricts."""
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def fsync_of_writable(handle):
        assert fcntl.fcntl(handle, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR), "Windows: bad file descriptor"
        fsync(handle)

    def rename_to_new(source, target):
        assert not os.path.exists(target), "Windows: file exists"
        rename(source, target)

    def replace_file(source, target):
        assert not os.path.isdir(target), "Windows: access denied"
        replace(source, target)

    for module, name in ((os, "pread"), (os, "sched_getaffinity"), (signal, "SIGUSR2")):
        monkeypatch.delattr(module, name)
    monkeypatch.setattr(submit, "fcntl", None)
    monkeypatch.setattr(os, "fsync", fsync_of_writable)
    monkeypatch.setattr(os, "rename", rename_to_new)
    monkeypatch.setattr(os, "replace", replace_file)


def test_commands(windows, call, photos, tmp_path, small_network):
    """Data, training, resumption, inference, and export to an empty folder."""
    (tmp_path / "model").mkdir()
    run_dir, training = "results/00000-autoencoder-1gpu-L-n2n", ["--train-tfrecords", "a.tfrecords"]
    snapshot = ["--network-snapshot", f"{run_dir}/network_final.pickle"]
    for main, *words in [
        (dataset_tool_tf.main, "--input-dir", photos, "--out", "a.tfrecords"),
        (config.main, "train", *training, "--iterations", 2, "--eval-interval", 1, "--validation-dir", photos),
        (config.main, "train", "--resume", run_dir, "--iterations", 3),
        (config.main, "infer-image", *snapshot, "--image", photos / "photo0.png", "--out", "new/x.tif"),
        (config.main, "export", *snapshot, "--out", "model/"),
    ]:
        done = call(main, *words)
        assert done.returncode == 0, done.stderr
        (tmp_path / run_dir / "_finished.txt").unlink(missing_ok=True)
    assert (tmp_path / "model/saved_model.pb").exists() and (tmp_path / "new/x.tif").exists()
