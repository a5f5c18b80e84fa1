"""Reproduces the paper's claim: networks trained with noisy targets are as good as those trained with clean ones.

    python networks/paper.py            # all corruptions, for hours; goes on where it was interrupted
    python networks/paper.py text       # one of them

For each corruption two networks are trained from the same random weights, on the same crops, by the same recipe, for
the same number of iterations: one with noisy targets (n2n) and the loss that belongs to the corruption, one with clean
targets (n2c) and squared error. docs/paper.md gets the table and the curves. Data: networks/README.md.
"""

import csv
import os
import shlex

from plot_runs import read_scalars
from runs import find_run, train_or_resume

import dnnlib
from dnnlib.options import ArgumentParser
from dnnlib.submission import SOURCE_ROOT
from dnnlib.util import run_script

RUNS = "results/paper"
TRAIN = ["config.py", "train", "--preset", "quick", "--train-tfrecords", "datasets/photos.tfrecords"]
TRAIN += ["--validation-dir", "datasets/held_out"]
OPTIONS = {  # {corruption: options of both of its trainings}
    "gaussian": [],
    "poisson": ["--balance"],
    "bernoulli": [],
    "text": [],
    "impulse": [],
}
TARGETS = {"n2n": [], "n2c": ["--noise2noise=false", "--loss", "l2"]}
TEST_SETS = {"kodak": "Kodak", "bsd300": "BSDS300 test"}  # {name of a validation set: as the table has it}
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

Noisy targets do as well as clean ones: that is the claim of Lehtinen et al. 2018. For each corruption this command
trains two networks from the same random weights, on the same crops, by the same recipe, for the same number of
iterations. They differ in the targets and, where noisy targets need another loss than squared error, in the loss. The
command writes the table and the curves. PSNR in dB; data: [networks/README.md](../networks/README.md).
"""


def main():
    """Trains and measures what is missing and writes the page. Ends with the status of the first command that fails."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("noises", nargs="*", metavar="NOISE", help=f"of {', '.join(OPTIONS)}; all by default")
    parser.add_argument("--length", metavar="N", help="iterations of each training, for a trial")
    args = parser.parse_args()
    if unknown := set(args.noises) - OPTIONS.keys():
        parser.error(f"{min(unknown)}: is none of {', '.join(OPTIONS)}")
    dnnlib.util.require("matplotlib", "networks/paper.py", "requirements-dev.txt")
    os.chdir(SOURCE_ROOT)
    for noise in args.noises or OPTIONS:
        for targets in TARGETS:
            run_dir = train_or_resume(command_of(noise, targets, args.length), desc_of(noise, targets), RUNS)
            for name in TEST_SETS:
                validate(noise, targets, name, os.path.join(run_dir, "network_final.pickle"))
        write_page(args.length)


def command_of(noise, targets, length=None):
    """The words after `python` of a training."""
    command = [*TRAIN, "--noise", noise, *OPTIONS[noise], *TARGETS[targets]]
    return [*command, "--iterations", length] if length else command


def desc_of(noise, targets):
    """The `--desc` of a training."""
    return f"paper-{noise}-{targets}"


def validate(noise, targets, name, snapshot):
    """Measures a network on the test set `name`, unless that has been done."""
    desc = measured_desc(noise, targets, name)
    if measured(desc) is None:
        words = ["--noise", noise, "--dataset-dir", name, "--network-snapshot", snapshot]
        run_script("config.py", "validate", *words, "--desc", desc, "--run-dir-root", RUNS)


def measured_desc(noise, targets, name):
    """The `--desc` of a validation."""
    return f"measured-{noise}-{targets}-{name}"


def measured(desc):
    """(corrupted, restored): the average PSNR in dB of a finished validation, or None."""
    run_dir = find_run(desc, RUNS)
    if run_dir is None or not os.path.exists(os.path.join(run_dir, "_finished.txt")):
        return None
    with open(os.path.join(run_dir, "metrics.csv"), encoding="utf-8", newline="") as f:
        mean = list(csv.DictReader(f))[-1]
    return float(mean["psnr_noisy"]), float(mean["psnr_denoised"])


def write_page(length=None):
    """Writes the table, the picture and the commands of all corruptions that are complete."""
    rows, commands, curves = [], [], {}
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
        for targets in TARGETS:
            commands.append("    python " + shlex.join(command_of(noise, targets, length)))
            scalars = read_scalars(find_run(desc_of(noise, targets), RUNS))
            curves[noise, targets] = scalars["PSNR_avg_psnr"]
    plot(curves)
    lines = [INTRODUCTION, "| corruption | images | corrupted | n2c | n2n | n2n - n2c | published n2c / n2n |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |", *rows, ""]
    lines += ["![PSNR of held-out photographs over iterations](images/paper.png)", "", *commands, ""]
    with dnnlib.open_atomic(PAGE) as f:
        f.write("\n".join(lines))
    print(f"Wrote {PAGE} and {PICTURE}.")


def plot(curves):
    """Writes the picture. curves: {(corruption, targets): (iterations, PSNR in dB)}."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    noises = list(dict.fromkeys(noise for noise, _ in curves))
    figure, all_axes = pyplot.subplots(
        1, len(noises), figsize=(3.4 * len(noises), 3.2), layout="constrained", squeeze=False
    )
    for axes, noise in zip(all_axes[0], noises):
        for targets, style in (("n2c", "--"), ("n2n", "-")):
            axes.plot(*curves[noise, targets], style, label=targets)
        axes.set(title=noise, xlabel="iteration")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0][0].set_ylabel("PSNR of held-out photographs in dB")
    all_axes[0][0].legend()
    with dnnlib.util.atomic_path(PICTURE) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    dnnlib.cli_main(main)
