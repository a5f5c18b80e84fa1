"""What a run needs to go on where its newest checkpoint was made: which that is, and its files cut back to it.

A checkpoint is `checkpoints/step-<N>.json` with other files of that name. The JSON file is written last, so it is there
only if the others are complete. It holds the state that the run wants to remember, and how long the log and the event
files were; resuming cuts off what came after, so that no line and no point of a curve appears twice.
"""

import contextlib
import glob
import json
import os
import re

from ..util import UserError, open_atomic

_FINAL_NETWORKS = ("network_final.pickle", "network-final.pkl")  # Of photographs, of MRI.


def final_network(run_dir):
    """Path of the network that a complete run leaves. None if there is none."""
    paths = [os.path.join(run_dir, name) for name in _FINAL_NETWORKS]
    return next(filter(os.path.isfile, paths), None)


def checkpoint_path(run_dir, step):
    """Path of the files of a checkpoint, without their suffixes."""
    return os.path.join(run_dir, "checkpoints", f"step-{step}")


def checkpoint_steps(run_dir):
    """Steps of the complete checkpoints, in rising order."""
    paths = glob.glob(checkpoint_path(glob.escape(run_dir), "*") + ".json")
    return sorted(int(match[1]) for match in (re.search(r"step-(\d+)\.json$", path) for path in paths) if match)


def complete_checkpoint(run_dir, step, state):
    """Writes the JSON file of a checkpoint whose other files are on disk. `state`: a dictionary that JSON can hold."""
    lengths = {name: os.path.getsize(os.path.join(run_dir, name)) for name in _growing_files(run_dir)}
    with open_atomic(checkpoint_path(run_dir, step) + ".json") as f:
        json.dump({"step": step, "state": state, "lengths": lengths}, f)


def remove_checkpoint(run_dir, step):
    """Removes a checkpoint, its JSON file first."""
    path = checkpoint_path(run_dir, step)
    for file in [path + ".json", *glob.glob(glob.escape(path) + ".*")]:
        with contextlib.suppress(FileNotFoundError):
            os.remove(file)


def newest_checkpoint(run_dir):
    """(step, state) of the newest complete checkpoint. UserError if there is none."""
    return _newest(run_dir)[:2]


def rewind(run_dir):
    """Cuts the log and the event files back to the newest checkpoint, and removes the signs of how the run ended."""
    step, _, lengths = _newest(run_dir)
    for name in _growing_files(run_dir):
        path = os.path.join(run_dir, name)
        if name in lengths:
            os.truncate(path, min(int(lengths[name]), os.path.getsize(path)))
        else:
            os.remove(path)
    for path in glob.glob(checkpoint_path(glob.escape(run_dir), "*")):
        match = re.search(r"step-(\d+)\.[^/]*$", path)
        if match and int(match[1]) > step:
            os.remove(path)  # Half-written.
    for name in ("abort.txt", "_failed.txt", "_stopped.txt"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(run_dir, name))


def _newest(run_dir):
    steps = checkpoint_steps(run_dir)
    if not steps:
        raise UserError(f"{run_dir}: has no checkpoint to resume from; start the run anew")
    path = checkpoint_path(run_dir, steps[-1]) + ".json"
    try:
        with open(path, encoding="utf-8") as f:
            record = json.load(f)
        return int(record["step"]), dict(record["state"]), dict(record["lengths"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not the record of a checkpoint") from None


def _growing_files(run_dir):
    return [n for n in os.listdir(run_dir) if n == "log.txt" or n.startswith("events.out.tfevents.")]
