"""Checkpoints in a run directory: finding the newest one and rewinding the run's files to it.

A checkpoint is `checkpoints/step-<N>.json` and other files of that name. The JSON file is written last, so it exists
only if the others are complete. It holds the state of the run and the lengths of the log and the event files. Resuming
truncates these to their lengths, so that no line and no point of a curve appears twice.
"""

import contextlib
import glob
import json
import os
import re

from ..util import UserError, open_atomic


def final_network(run_dir):
    """Return the path of the network that a complete run leaves, such as `network_final.pickle`, or None."""
    paths = sorted(glob.glob(os.path.join(glob.escape(run_dir), "network*final.*")))
    return paths[0] if paths else None


def checkpoint_path(run_dir, step):
    """Return the path of the files of a checkpoint, without suffix."""
    return os.path.join(run_dir, "checkpoints", f"step-{step}")


def checkpoint_steps(run_dir):
    """Return the steps of the complete checkpoints in ascending order."""
    paths = glob.glob(checkpoint_path(glob.escape(run_dir), "*") + ".json")
    return sorted(int(match[1]) for match in (re.search(r"step-(\d+)\.json$", path) for path in paths) if match)


def complete_checkpoint(run_dir, step, state):
    """Write the JSON file of a checkpoint whose other files are on disk; `state` is a dictionary of JSON data."""
    lengths = {name: os.path.getsize(os.path.join(run_dir, name)) for name in _growing_files(run_dir)}
    with open_atomic(checkpoint_path(run_dir, step) + ".json") as f:
        json.dump({"step": step, "state": state, "lengths": lengths}, f)


def remove_checkpoint(run_dir, step):
    """Remove a checkpoint, its JSON file first."""
    path = checkpoint_path(run_dir, step)
    for file in [path + ".json", *glob.glob(glob.escape(path) + ".*")]:
        with contextlib.suppress(FileNotFoundError):
            os.remove(file)


def newest_checkpoint(run_dir):
    """Return (step, state) of the newest complete checkpoint; raise UserError if there is none."""
    return _newest(run_dir)[:2]


def rewind(run_dir):
    """Truncate the log and the event files to the newest checkpoint; remove the files that tell how the run ended."""
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
            os.remove(path)  # The run ended while it wrote this checkpoint.
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
