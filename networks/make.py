"""Trains the networks of this folder and writes a card for each: `make networks`, or `python networks/make.py NAME ...`

It runs the ordinary commands from the root of the project, printed as it goes, and goes on where it was interrupted:
networks that are there are left alone, runs that were begun are resumed. What data they need: networks/README.md.
"""

import argparse
import dataclasses
import glob
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import config
import dnnlib
from dnnlib.submission import SOURCE_ROOT, load_submit_config
from dnnlib.util import run_script

RUNS = "results/networks"
# Those of the networks that are here: hours in all. More is better, see docs/recipe.md.
GAUSSIAN_STAGES = [
    {"--minibatch-size": "16", "--crop-size": "64", "--learning-rate": "0.001", "--iterations": "6500"},
    {"--minibatch-size": "8", "--crop-size": "96", "--learning-rate": "0.0005", "--iterations": "7000"},
]
POISSON_STAGES = [
    {
        "--load-network": "networks/gaussian-n2n.pickle",  # From random weights it takes far longer.
        "--minibatch-size": "8",
        "--crop-size": "96",
        "--learning-rate": "0.0003",
        "--iterations": "2500",
    },
]
MRI_STAGES = [
    {"--minibatch-size": "2", "--num-epochs": "6"},
    {"--minibatch-size": "4", "--learning-rate": "0.0004", "--num-epochs": "6"},
]
TEST_SETS = {"Kodak": config.VALIDATION_SETS.kodak, "BSDS300 test": config.VALIDATION_SETS.bsd300}


@dataclasses.dataclass
class Recipe:
    """How a network is trained, measured and described."""

    title: str
    train: list  # A program and its options.
    stages: list  # More options, {option: value}, for each stage of the training; one starts from the one before.
    length: str  # The option that says for how long.
    validate: dict  # {what it is measured on: a program and its options}
    final: str  # The run's last snapshot.
    curves: list
    data: str
    limits: str
    clean_targets: str = ""  # Option of a second training, for comparison in the card.


def _photographs(noise, targets, strengths, stages):
    train = ["config.py", "train", "--preset", "quick", "--noise", noise]
    train += [] if targets == "n2n" else ["--noise2noise=false"]
    train += ["--train-tfrecords", "datasets/photos.tfrecords", "--validation-dir", "datasets/held_out"]
    return Recipe(
        title=f"photographs with {noise.capitalize()} noise, {'noisy' if targets == 'n2n' else 'clean'} targets",
        train=train,
        stages=stages,
        length="--iterations",
        validate={
            name: ["config.py", "validate", "--noise", noise, "--dataset-dir", folder]
            for name, folder in TEST_SETS.items()
        },
        final="network_final.pickle",
        curves=["PSNR_avg_psnr", "Loss"],
        data="1,176 photographs: BSDS300 train, and one of each of ImageNet's 1,000 classes but for 24, those of "
        "the curve. Both sets are for non-commercial research.",
        limits=f"Made for {noise.capitalize()} noise of {strengths} on sRGB values, independent from pixel to pixel. "
        "Noise that a camera has processed or a JPEG has smeared is another one.",
    )


RECIPES = {
    f"{noise}-{targets}": _photographs(noise, targets, strengths, stages)
    for noise, strengths, stages in (
        ("gaussian", "sigma 0 to 50", GAUSSIAN_STAGES),
        ("poisson", "up to 50 photons in white", POISSON_STAGES),
    )
    for targets in ("n2n", "n2c")
}
RECIPES["mri-n2n"] = Recipe(
    title="MRI slices with undersampled k-space, undersampled targets",
    train=["config_mri.py", "train"],
    stages=MRI_STAGES,
    length="--num-epochs",
    validate={"sub-21 to sub-24": ["config_mri.py", "validate"]},
    final="network-final.pkl",
    curves=["test_db_clamped", "Loss"],
    data="400 axial slices of sub-01 to sub-20 of OpenNeuro ds002748 (CC0).",
    limits="Made for T1 slices of 255x255 without skull. Not for diagnosis.",
    clean_targets="--corrupt-targets=false",
)


@dataclasses.dataclass
class Run:
    """A stage of a training, done."""

    command: list  # The words after `python`.
    run_dir: str
    final: str  # Its last snapshot.


def main():
    """Makes what is missing. Ends with the status of the first command that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all by default")
    parser.add_argument("--length", metavar="N", help="iterations or epochs of each stage, for a trial")
    args = parser.parse_args()
    if unknown := set(args.names) - RECIPES.keys():
        parser.error(f"{min(unknown)}: is none of {', '.join(RECIPES)}")
    os.chdir(SOURCE_ROOT)
    for name in args.names or RECIPES:
        make(name, RECIPES[name], args.length)


def make(name, recipe, length=None):
    """Trains, measures and describes a network, unless it is there."""
    snapshot = f"networks/{name}.pickle"
    if os.path.exists(snapshot):
        print(f"{snapshot} is there already.")
        return
    stages = [stage | ({recipe.length: length} if length else {}) for stage in recipe.stages]
    trained = {name: _train(name, recipe.train, stages, recipe.final)}
    if recipe.clean_targets:
        rival = name.replace("n2n", "n2c")
        trained[rival] = _train(rival, [*recipe.train, recipe.clean_targets], stages, recipe.final)
    curves = [",".join(run.run_dir for run in runs) for runs in trained.values()]
    run_script(
        *("benchmarks/plot_runs.py", *curves, "--tags", *recipe.curves),
        *("--labels", *trained, "--out", f"networks/{name}.png"),
    )
    measured = []
    for label, words in recipe.validate.items():
        for who, runs in trained.items():
            command = shlex.join([*words, "--network-snapshot", snapshot])
            how = f"`python {command}`" if who == name else f"{who}, trained with `{recipe.clean_targets}`, not kept"
            measured.append((label, *_measure(words, runs[-1].final), how))
    with dnnlib.util.atomic_path(snapshot) as temporary:
        _copy_weights(trained[name][-1].final, temporary)
        with open(temporary, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        with dnnlib.open_atomic(f"networks/{name}.md") as f:
            f.write(card(name, recipe, trained[name], digest, measured))
    print(f"Made {snapshot} and its card.")


def _train(name, train, stages, final):
    """Trains stage by stage by the command `train`, or goes on, or does nothing if that was done. Returns the Runs."""
    runs = []
    for number, options in enumerate(stages, 1):
        command = train + [word for option in options.items() for word in option]
        command += ["--load-network", runs[-1].final] if runs else []
        desc = f"{name}.{number}" if runs else name
        run_dir = _find_run(desc)
        if run_dir is None:
            run_script(*command, "--desc", desc, "--run-dir-root", RUNS)
            run_dir = _find_run(desc)
        elif not os.path.exists(os.path.join(run_dir, "_finished.txt")):
            run_script(*train[:2], "--resume", run_dir)
        runs.append(Run(command, run_dir, os.path.join(run_dir, final)))
    return runs


def _measure(words, snapshot):
    """PSNR in dB (corrupted, restored) by the command `words`."""
    words = [*words, "--network-snapshot", snapshot, "--run-dir-root", RUNS, "--desc", "measured"]
    return decibels(run_script(*words, stdout=subprocess.PIPE))


def _copy_weights(snapshot, path):
    """Copies a snapshot, those of MRI without the optimizer's variables, two thirds of them."""
    from dnnlib import tflib

    state = tflib.load_snapshot(snapshot)
    if "static_kwargs" in state:
        shutil.copyfile(snapshot, path)
    else:
        weights = {name: value for name, value in state.variables.items() if name.endswith(("/W", "/b"))}
        tflib.save_arrays(weights, path)


def card(name, recipe, runs, digest, measured):
    """The card of a network, in Markdown. measured: (what on, PSNR corrupted and restored, how) of each measurement."""
    rows = [("network", f"`networks/{name}.pickle`, sha256 `{digest}`"), ("data", recipe.data)]
    for run in runs:
        rows += _describe(run, recipe.length)
    lines = [f"# {name}: {recipe.title}", "", "| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""]
    lines += ["| measured on | corrupted | restored | by |", "| --- | --- | --- | --- |"]
    for label, before, after, how in measured:
        lines.append(f"| {label} | {before:.2f} dB | {after:.2f} dB | {how} |")
    lines += ["", f"![curves of the training]({name}.png)", "", recipe.limits, ""]
    lines += ["The weights are under the project's licence, [Apache 2.0](../LICENSE); the data: see above.", ""]
    return "\n".join(lines)


def _describe(run, length_option):
    """Rows of the card: what a run did."""
    submit_config = load_submit_config(run.run_dir)
    settings = submit_config.run_func_kwargs
    with open(os.path.join(run.run_dir, "log.txt"), encoding="utf-8") as f:
        log = f.read()
    precision, took = (re.findall(pattern, log)[-1] for pattern in (r"Precision: (\w+)", r"Elapsed time: (.*)"))
    length = settings.get("iteration_count") or settings.num_epochs
    unit = length_option.lstrip("-").removeprefix("num-")
    return [
        ("command", f"`python {shlex.join(run.command)}`"),
        ("seed", settings.seed),
        ("length", f"{length} {unit}, {settings.minibatch_size} at a time"),
        ("time", f"{took}, in {precision}, on a machine that did other work too"),
        ("commit", f"`{submit_config.get('commit')}`"),
    ]


def decibels(output):
    """(corrupted, restored): average PSNR from what `validate` printed."""
    if "test_db_clamped=" in output:
        return tuple(float(re.search(rf"^{n}_db_clamped=([\d.]+)", output, re.M)[1]) for n in ("corrupted", "test"))
    noisy = [float(value) for value in re.findall(r"([\d.]+) -> [\d.]+ dB", output)]
    return sum(noisy) / len(noisy), float(re.search(r"Average PSNR: ([\d.]+)", output)[1])


def _find_run(name):
    """The last run directory of that name, or None."""
    found = sorted(glob.glob(f"{RUNS}/[0-9]*-{name}-*"))
    return found[-1] if found else None


if __name__ == "__main__":
    dnnlib.cli_main(main)
