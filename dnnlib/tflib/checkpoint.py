"""Checkpoints of all variables, by TensorFlow's Saver."""

import glob
import os
import time

from ..submission import resume
from ..util import UserError
from .tfutil import reason, tf


class Checkpoints:
    """The last two checkpoints of a run (see `submission.resume` for their form)."""

    def __init__(self, run_dir, minutes, data=None, keep=2):
        """Construct it once the graph is complete: all its variables are saved.

        minutes: see `due`; data: the checksum of the training data, for `check_data`.
        """
        self._run_dir, self._seconds, self._data, self._keep = run_dir, 60 * minutes, data, keep
        self._last = time.time()
        self._saver = tf.train.Saver(max_to_keep=None)

    def due(self):
        """True if the last checkpoint was made more than so many minutes ago."""
        return time.time() - self._last > self._seconds

    def save(self, step, state):
        """Saves the variables of the default session and `state`, a dictionary that JSON can hold.

        Older checkpoints go only after this one has been read back whole.
        """
        path = resume.checkpoint_path(self._run_dir, step)
        try:
            self._saver.save(tf.get_default_session(), path, write_meta_graph=False, write_state=False)
            _read_back(path)
        except (tf.errors.OpError, ValueError, IndexError) as error:  # IndexError: the file is cut short.
            resume.remove_checkpoint(self._run_dir, step)  # Half of one, on a disk that may be full.
            raise UserError(f"{path}: the checkpoint cannot be written: {reason(error)}") from None
        resume.complete_checkpoint(self._run_dir, step, state | {"data": self._data})
        self._last = time.time()
        for old in resume.checkpoint_steps(self._run_dir)[: -self._keep]:
            resume.remove_checkpoint(self._run_dir, old)

    def restore(self, step):
        """Restores the variables in the default session."""
        path = resume.checkpoint_path(self._run_dir, step)
        try:
            self._saver.restore(tf.get_default_session(), path)
        except (tf.errors.OpError, ValueError) as error:
            raise UserError(f"{path}: the checkpoint cannot be read: {reason(error)}") from None


def check_data(state, data, path):
    """UserError if the state of a checkpoint is that of training on other data than `path`, whose checksum is `data`.

    Checkpoints of older versions have no checksum.
    """
    if state.get("data") not in (None, data):
        raise UserError(f"{path}: not the data that the run to be resumed was trained on; name that")


def _read_back(path):
    """Reads every tensor of a checkpoint, which verifies its checksums, and brings its files to the disk."""
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
    for file in glob.glob(glob.escape(path) + ".*"):
        with open(file, "rb") as f:
            os.fsync(f.fileno())
