"""Reproduce the paper's claim: networks trained with noisy targets are as good as those trained with clean ones.

    python networks/paper.py            # all corruptions: takes hours; continues where it was interrupted
    python networks/paper.py text       # one corruption

For each corruption the script trains two networks from the same random weights, on the same crops, by the same recipe,
for the same number of iterations: n2n with noisy targets and the corruption's loss, n2c with clean targets and squared
error. It writes the table and the curves to docs/paper.md. networks/README.md lists the data that it needs.
"""

import csv
import os
import shlex

import dnnlib
from dnnlib.options import ArgumentParser
from dnnlib.submission import SOURCE_ROOT
from dnnlib.util import run_script
from networks.plot_runs import plot, read_scalars
from networks.runs import find_run, train_or_resume

RUNS = "results/paper"
TRAIN = ["config.py", "train", "--preset", "quick", "--train-tfrecords", "datasets/photos.tfrecords"]
TRAIN += ["--validation-dir", "datasets/held_out"]
OPTIONS = {  # {corruption: options of both trainings}
    "gaussian": [],
    "poisson": ["--balance"],
    "bernoulli": [],
    "text": [],
    "impulse": [],
}
TARGETS = {"n2n": [], "n2c": ["--noise2noise=false", "--loss", "l2"]}
TEST_SETS = {"kodak": "Kodak", "bsd300": "BSDS300 test"}  # {validation set: name in the table}
PUBLISHED = {  # PSNR in dB, n2c / n2n: README of the 2018 release; the paper's table 1 and its figures 6 and 7.
    ("gaussian", "kodak"): "32.38 / 32.39",
    ("gaussian", "bsd300"): "31.01 / 31.02",
    ("poisson", "kodak"): "31.66 / 31.66",
    ("poisson", "bsd300"): "30.27 / 30.26",
    ("bernoulli", "kodak"): "33.01 / 33.17",
    ("bernoulli", "bsd300"): "31.04 / 31.16",
    ("text", "kodak"): "35.82 / 35.75 (one image)",
    ("impulse", "kodak"): "28.86 / 28.43 (one image)",
}
PAGE = "docs/paper.md"
PICTURE = "docs/images/paper.png"
INTRODUCTION = """# The paper's claim, from scratch

    python networks/paper.py    # or make paper

Lehtinen et al. 2018 claim that noisy targets are as good as clean ones. For each corruption this command trains two
networks from the same random weights, on the same crops, by the same recipe, for the same number of iterations. They
differ in the targets and, where noisy targets need another loss than squared error, in the loss. The command writes
the table and the curves. PSNR in dB; [networks/README.md](../networks/README.md) lists the data.
"""


def main():
    """Train and measure what is missing, then write the page. Exit with the status of the first command that fails."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("noises", nargs="*", metavar="NOISE", help=f"corruptions: {', '.join(OPTIONS)}; default: all")
    parser.add_argument("--length", metavar="N", help="iterations of each training, to try the script")
    args = parser.parse_args()
    if unknown := set(args.noises) - OPTIONS.keys():
        parser.error(f"{min(unknown)}: no such corruption; choose from {', '.join(OPTIONS)}")
    dnnlib.util.require("matplotlib", "networks/paper.py", "requirements-dev.txt")
    os.chdir(SOURCE_ROOT)
    for noise in args.noises or OPTIONS:
        for targets in TARGETS:
            run_dir = train_or_resume(command_of(noise, targets, args.length), desc_of(noise, targets), RUNS)
            for name in TEST_SETS:
                validate(noise, targets, name, os.path.join(run_dir, "network_final.pickle"))
        write_page(args.length)


def command_of(noise, targets, length=None):
    """Return the words after `python` of a training command."""
    command = [*TRAIN, "--noise", noise, *OPTIONS[noise], *TARGETS[targets]]
    return [*command, "--iterations", length] if length else command


def desc_of(noise, targets):
    """Return the `--desc` of a training."""
    return f"paper-{noise}-{targets}"


def validate(noise, targets, name, snapshot):
    """Measure a network on the test set `name`, unless that has been done."""
    desc = measured_desc(noise, targets, name)
    if measured(desc) is None:
        words = ["--noise", noise, "--dataset-dir", name, "--network-snapshot", snapshot]
        run_script("config.py", "validate", *words, "--desc", desc, "--run-dir-root", RUNS)


def measured_desc(noise, targets, name):
    """Return the `--desc` of a validation."""
    return f"measured-{noise}-{targets}-{name}"


def measured(desc):
    """Return the average PSNR in dB of a finished validation, (corrupted, restored), or None."""
    run_dir = find_run(desc, RUNS)
    if run_dir is None or not os.path.exists(os.path.join(run_dir, "_finished.txt")):
        return None
    with open(os.path.join(run_dir, "metrics.csv"), encoding="utf-8", newline="") as f:
        mean = list(csv.DictReader(f))[-1]
    return float(mean["psnr_noisy"]), float(mean["psnr_denoised"])


def write_page(length=None):
    """Write the page for all corruptions that are complete: table, picture and commands."""
    rows, commands, plots = [], [], {}
    for noise in OPTIONS:
        results = {
            (name, targets): measured(measured_desc(noise, targets, name)) for name in TEST_SETS for targets in TARGETS
        }
        if None in results.values():
            continue
        for name in TEST_SETS:
            (corrupted, n2c), (_, n2n) = results[name, "n2c"], results[name, "n2n"]
            paper = PUBLISHED.get((noise, name), "")
            figures = f"{corrupted:.2f} | {n2c:.2f} | {n2n:.2f} | {n2n - n2c:+.2f}"
            rows.append(f"| {noise} | {TEST_SETS[name]} | {figures} | {paper} |")
        plots[noise] = {}
        for targets in TARGETS:
            commands.append("    python " + shlex.join(command_of(noise, targets, length)))
            plots[noise][targets] = read_scalars(find_run(desc_of(noise, targets), RUNS))["PSNR_avg_psnr"]
    plot(plots, PICTURE, "iteration", "PSNR of held-out photographs in dB")
    lines = [INTRODUCTION, "| corruption | images | corrupted | n2c | n2n | n2n - n2c | published n2c / n2n |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |", *rows, ""]
    lines += ["![PSNR of held-out photographs over iterations](images/paper.png)", "", *commands, ""]
    with dnnlib.open_atomic(PAGE) as f:
        f.write("\n".join(lines))
    print(f"Wrote {PAGE} and {PICTURE}.")


if __name__ == "__main__":
    dnnlib.cli_main(main)
