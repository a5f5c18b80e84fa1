"""Trainings by the ordinary commands: each runs once and is resumed if it was interrupted."""

import glob
import os
import re
import subprocess

from dnnlib.util import run_script


def train_or_resume(command, desc, root):
    """Run a training unless it has finished; resume it if it was interrupted.

    Args:
        command: Words after `python`: a program, `train` and its options.
        desc: The `--desc` that identifies the run.
        root: Folder of the run directories.

    Returns:
        The run directory. If the training fails, the program exits with its status.
    """
    run_dir = find_run(desc, root)
    if run_dir is None:
        run_script(*command, "--desc", desc, "--run-dir-root", root)
        return find_run(desc, root)
    if not os.path.exists(os.path.join(run_dir, "_finished.txt")):
        run_script(*command[:2], "--resume", run_dir)
    return run_dir


def find_run(desc, root):
    """Return the newest run directory with that `--desc`, or None."""
    found = sorted(glob.glob(f"{root}/[0-9]*-{desc}-*"))
    return found[-1] if found else None


def time_of(run_dir):
    """Return how long a finished training took and in which precision, in words."""
    with open(os.path.join(run_dir, "log.txt"), encoding="utf-8") as f:
        log = f.read()
    precision, took = (re.findall(pattern, log)[-1] for pattern in (r"Precision: (\w+)", r"Elapsed time: (.*)"))
    return f"{took} in {precision}"


def measure(validate, snapshot, root):
    """Measure a snapshot. Return its average PSNR in dB: (corrupted, restored).

    Args:
        validate: Words after `python`: a program, `validate` and its options.
        snapshot: Path of the snapshot.
        root: Folder of the run directories.
    """
    words = [*validate, "--network-snapshot", snapshot, "--run-dir-root", root, "--desc", "measured"]
    return decibels(run_script(*words, stdout=subprocess.PIPE))


def decibels(output):
    """Return the average PSNR in dB that `validate` printed: (corrupted, restored)."""
    if "test_db_clamped=" in output:
        return tuple(float(re.findall(rf"^{n}_db_clamped=([\d.]+)", output, re.M)[0]) for n in ("corrupted", "test"))
    noisy = [float(value) for value in re.findall(r"([\d.]+) -> [\d.]+ dB", output)]
    return sum(noisy) / len(noisy), float(re.findall(r"Average PSNR: ([\d.]+)", output)[0])
