"""Checkpoints of all variables, written by TensorFlow's Saver."""

import glob
import time

from ..submission import resume
from ..util import UserError, flush_to_disk
from .tfutil import reason, tf


class Checkpoints:
    """The last two checkpoints of a run; `submission.resume` describes their files."""

    def __init__(self, run_dir, minutes, data=None, keep=2):
        """Create the saver. The graph must be complete, because all of its variables are saved.

        Args:
            minutes: Time after which a checkpoint is `due`.
            data: Checksum of the training data, for `check_data`.
            keep: Number of checkpoints to keep.
        """
        self._run_dir, self._seconds, self._data, self._keep = run_dir, 60 * minutes, data, keep
        self._last = time.time()
        self._saver = tf.train.Saver(max_to_keep=None)

    def due(self):
        """Return whether the last checkpoint is older than `minutes`."""
        return time.time() - self._last > self._seconds

    def save(self, step, state):
        """Save the variables of the default session and `state`, a dictionary of JSON data.

        Older checkpoints are removed only after this one has been read back.
        """
        path = resume.checkpoint_path(self._run_dir, step)
        try:
            self._saver.save(tf.get_default_session(), path, write_meta_graph=False, write_state=False)
            _read_back(path)
        except (tf.errors.OpError, ValueError, IndexError) as error:  # IndexError: the file is truncated.
            resume.remove_checkpoint(self._run_dir, step)  # Frees space on a full disk.
            raise UserError(f"{path}: the checkpoint cannot be written: {reason(error)}") from None
        resume.complete_checkpoint(self._run_dir, step, state | {"data": self._data})
        self._last = time.time()
        for old in resume.checkpoint_steps(self._run_dir)[: -self._keep]:
            resume.remove_checkpoint(self._run_dir, old)

    def restore(self, step):
        """Restore the variables in the default session."""
        path = resume.checkpoint_path(self._run_dir, step)
        try:
            self._saver.restore(tf.get_default_session(), path)
        except (tf.errors.OpError, ValueError) as error:
            raise UserError(f"{path}: the checkpoint cannot be read: {reason(error)}") from None


def check_data(state, data, path):
    """Raise UserError if the checkpoint with this `state` comes from training on other data.

    Args:
        state: State of the checkpoint. Those of older versions have no checksum.
        data: Checksum of the training data.
        path: Path of the training data, for the message.
    """
    if state.get("data") not in (None, data):
        raise UserError(f"{path}: not the data that the run to be resumed was trained on; name that")


def _read_back(path):
    """Read every tensor of a checkpoint, which verifies its checksums, and flush its files to the disk."""
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
    for file in glob.glob(glob.escape(path) + ".*"):
        flush_to_disk(file)
