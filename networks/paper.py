"""Reproduce the paper's claim: networks trained with noisy targets are as good as those trained with clean ones.

    python networks/paper.py            # all corruptions: takes hours; continues where it was interrupted
    python networks/paper.py text       # one corruption

For each corruption the script trains two networks from the same random weights, on the same crops, by the same recipe,
for the same number of iterations: n2n with noisy targets and the corruption's loss, n2c with clean targets and squared
error. It keeps the results of each corruption in docs/paper/ and writes the table and the curves of all of them to
docs/paper.md. To repeat a corruption, delete its file there. networks/README.md lists the data that it needs.
"""

import json
import os
import shlex

import dnnlib
from dnnlib.options import ArgumentParser, choice
from dnnlib.submission import SOURCE_ROOT
from networks.plot_runs import plot, read_scalars
from networks.runs import measure, time_of, train_or_resume

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
RESULTS = "docs/paper/{noise}.json"
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
    noises = f"corruptions: {', '.join(OPTIONS)}; default: all"
    parser.add_argument("noises", nargs="*", type=choice(OPTIONS), metavar="NOISE", help=noises)
    parser.add_argument("--length", metavar="N", help="iterations of each training, to try the script")
    args = parser.parse_args()
    dnnlib.util.require("matplotlib", "networks/paper.py", "-e '.[dev]'")
    os.chdir(SOURCE_ROOT)
    for noise in args.noises or OPTIONS:
        if not os.path.exists(RESULTS.format(noise=noise)):
            results = {targets: train_and_measure(noise, targets, args.length) for targets in TARGETS}
            os.makedirs(os.path.dirname(RESULTS), exist_ok=True)
            with dnnlib.open_atomic(RESULTS.format(noise=noise)) as f:
                f.write(json.dumps(results, indent=1) + "\n")
        write_page()


def train_and_measure(noise, targets, length=None):
    """Train a network, unless that has been done, and measure it on the test sets.

    Returns:
        JSON data: the command, the time it took, the curve of the PSNR of held-out photographs in dB (steps, values),
        and for each test set the average PSNR in dB (corrupted, restored).
    """
    command = command_of(noise, targets, length)
    run_dir = train_or_resume(command, f"paper-{noise}-{targets}", RUNS)
    snapshot = os.path.join(run_dir, "network_final.pickle")
    words = ["config.py", "validate", "--noise", noise, "--dataset-dir"]
    return {
        "command": shlex.join(["python", *command]),
        "took": time_of(run_dir),
        "curve": read_scalars(run_dir)["PSNR_avg_psnr"],
        "psnr": {name: measure([*words, name], snapshot, RUNS) for name in TEST_SETS},
    }


def command_of(noise, targets, length=None):
    """Return the words after `python` of a training command."""
    command = [*TRAIN, "--noise", noise, *OPTIONS[noise], *TARGETS[targets]]
    return [*command, "--iterations", length] if length else command


def write_page():
    """Write the page for all corruptions that have results: table, picture and commands."""
    rows, commands, plots = [], [], {}
    for noise in OPTIONS:
        if not os.path.exists(RESULTS.format(noise=noise)):
            continue
        with open(RESULTS.format(noise=noise), encoding="utf-8") as f:
            results = json.load(f)
        for name, title in TEST_SETS.items():
            (corrupted, n2n), (_, n2c) = (results[targets]["psnr"][name] for targets in ("n2n", "n2c"))
            figures = f"{corrupted:.2f} | {n2c:.2f} | {n2n:.2f} | {n2n - n2c:+.2f}"
            rows.append(f"| {noise} | {title} | {figures} | {PUBLISHED.get((noise, name), '')} |")
        plots[noise] = {targets: result["curve"] for targets, result in results.items()}
        commands += [f"    {result['command']}    # {result['took']}" for result in results.values()]
    plot(plots, PICTURE, "iteration", "PSNR of held-out photographs in dB")
    lines = [INTRODUCTION, "| corruption | images | corrupted | n2c | n2n | n2n - n2c | published n2c / n2n |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |", *rows, ""]
    lines += ["![PSNR of held-out photographs over iterations](images/paper.png)", "", *commands, ""]
    with dnnlib.open_atomic(PAGE) as f:
        f.write("\n".join(lines))
    print(f"Wrote {PAGE} and {PICTURE}.")


if __name__ == "__main__":
    dnnlib.cli_main(main)
