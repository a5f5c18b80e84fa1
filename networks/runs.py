"""Trainings by the ordinary commands: each is run once, and resumed where it was interrupted."""

import glob
import os
import re
import subprocess

from dnnlib.util import run_script


def train_or_resume(command, desc, root):
    """Runs a training unless it has finished, and goes on with it where it was interrupted.

    Args:
        command: The words after `python`: a program, `train` and its options.
        desc: The run's `--desc`, by which it is found again.
        root: Folder of the run directories.

    Returns:
        The run directory. The program ends with the status of a training that fails.
    """
    run_dir = find_run(desc, root)
    if run_dir is None:
        run_script(*command, "--desc", desc, "--run-dir-root", root)
        return find_run(desc, root)
    if not os.path.exists(os.path.join(run_dir, "_finished.txt")):
        run_script(*command[:2], "--resume", run_dir)
    return run_dir


def find_run(desc, root):
    """The newest run directory with that `--desc`, or None."""
    found = sorted(glob.glob(f"{root}/[0-9]*-{desc}-*"))
    return found[-1] if found else None


def measure(validate, snapshot, root):
    """PSNR in dB (corrupted, restored) of a snapshot by the command `validate`, the words after `python`."""
    words = [*validate, "--network-snapshot", snapshot, "--run-dir-root", root, "--desc", "measured"]
    return decibels(run_script(*words, stdout=subprocess.PIPE))


def decibels(output):
    """PSNR in dB (corrupted, restored): the averages in what `validate` printed."""
    if "test_db_clamped=" in output:
        return tuple(float(re.search(rf"^{n}_db_clamped=([\d.]+)", output, re.M)[1]) for n in ("corrupted", "test"))
    noisy = [float(value) for value in re.findall(r"([\d.]+) -> [\d.]+ dB", output)]
    return sum(noisy) / len(noisy), float(re.search(r"Average PSNR: ([\d.]+)", output)[1])
