"""Checkpoints: two are kept, only complete ones count, errors name the file."""

import os
import resource

import numpy as np
import pytest

import dnnlib
from dnnlib import submission, tflib
from dnnlib.submission import resume
from dnnlib.tflib import tf


@pytest.fixture
def variable():
    with tf.Graph().as_default(), tflib.create_session() as session:
        value = tf.get_variable("x", [100000], initializer=tf.zeros_initializer())
        session.run(value.initializer)
        yield value


def test_two_are_kept_and_the_newest_is_restored(variable, tmp_path):
    run_dir, session = str(tmp_path), tf.get_default_session()
    (tmp_path / "log.txt").write_text("one\n")
    checkpoints = tflib.Checkpoints(run_dir, minutes=5, data="0123abcd")
    for step in (1, 2, 10):
        session.run(variable.assign(np.full(100000, step)))
        checkpoints.save(step, {"best": step / 3})
    assert resume.checkpoint_steps(run_dir) == [2, 10] and not checkpoints.due()
    assert {name.split(".")[0] for name in os.listdir(tmp_path / "checkpoints")} == {"step-2", "step-10"}

    session.run(variable.assign(np.zeros(100000)))
    (tmp_path / "log.txt").write_text("one\ntwo\n")
    (tmp_path / "events.out.tfevents.later").touch()
    (tmp_path / "checkpoints" / "step-11.index").touch()  # Half-written when the run was killed.
    resume.rewind(run_dir)
    step, state = submission.newest_checkpoint(run_dir)
    checkpoints.restore(step)
    assert (step, state) == (10, {"best": 10 / 3, "data": "0123abcd"}) and (session.run(variable) == 10).all()
    tflib.check_data(state, "0123abcd", "moved.tfrecords")
    with pytest.raises(dnnlib.UserError, match=r"other\.tfrecords: not the data that the run to be resumed"):
        tflib.check_data(state, "0123abce", "other.tfrecords")
    assert (tmp_path / "log.txt").read_text() == "one\n"
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "log.txt"]
    assert not os.path.exists(tmp_path / "checkpoints" / "step-11.index")


def test_failed_write_keeps_the_previous_one(variable, tmp_path):
    checkpoints = tflib.Checkpoints(str(tmp_path), minutes=5)
    checkpoints.save(1, {})
    before = sorted(os.listdir(tmp_path / "checkpoints"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(dnnlib.UserError, match=r"step-2: the checkpoint cannot be written: File too large"):
            checkpoints.save(2, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == before


def test_torn_write_keeps_the_previous_one(variable, tmp_path, monkeypatch):
    checkpoints, save = tflib.Checkpoints(str(tmp_path), minutes=5, keep=1), tf.train.Saver.save

    def torn(self, session, path, **options):
        save(self, session, path, **options)
        os.truncate(path + ".data-00000-of-00001", 1000)

    checkpoints.save(1, {})
    monkeypatch.setattr(tf.train.Saver, "save", torn)
    with pytest.raises(dnnlib.UserError, match=r"step-2: the checkpoint cannot be written"):
        checkpoints.save(2, {})
    assert resume.checkpoint_steps(str(tmp_path)) == [1]


def test_damaged_one_is_named(variable, tmp_path):
    checkpoints = tflib.Checkpoints(str(tmp_path), minutes=5)
    checkpoints.save(1, {})
    data = tmp_path / "checkpoints" / "step-1.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(dnnlib.UserError, match=r"step-1: the checkpoint cannot be read"):
        checkpoints.restore(1)
    (tmp_path / "checkpoints" / "step-1.json").write_text("{}")
    with pytest.raises(dnnlib.UserError, match=r"step-1\.json: not the record of a checkpoint"):
        submission.newest_checkpoint(str(tmp_path))
