"""Training runs in processes, for tests that watch, stop and compare them."""

import os
import subprocess
import sys
import time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RUN_DIR = "results/00000-autoencoder-1gpu-L-n2n"


def train(folder, *options, script="config.py", **kwargs):
    """Start a training in `folder`; its output goes to the file `out` there."""
    words = [sys.executable, os.path.abspath(script), "train", *map(str, options)]
    with open(folder / "out", "a") as out:
        return subprocess.Popen(words, cwd=folder, stdout=out, stderr=subprocess.STDOUT, **kwargs)


def finish(process, folder):
    assert process.wait(timeout=300) == 0, (folder / "out").read_text()


def wait_for(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended by itself"


def points(run_dir):
    events = EventAccumulator(str(run_dir))
    events.Reload()
    curves = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if not tag.startswith(("Timing", "xCustom"))}
    return {tag: [(p.step, p.value) for p in curve] for tag, curve in curves.items()}
