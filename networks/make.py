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
TEST_SETS = {"Kodak": config.VALIDATION_SETS.kodak, "BSDS300 test": config.VALIDATION_SETS.bsd300}


@dataclasses.dataclass
class Recipe:
    """How a network is trained, measured and described."""

    title: str
    train: list  # A program and its options.
    length: str  # The option that says for how long.
    validate: dict  # {what it is measured on: a program and its options}
    final: str  # The run's last snapshot.
    curves: list
    data: str
    limits: str
    clean_targets: str = ""  # Option of a second training, for comparison in the card.


def _photographs(noise, targets, strengths):
    train = ["config.py", "train", "--preset", "quick", "--noise", noise]
    train += [] if targets == "n2n" else ["--noise2noise=false"]
    train += ["--train-tfrecords", "datasets/photos.tfrecords", "--validation-dir", "datasets/held_out"]
    return Recipe(
        title=f"photographs with {noise.capitalize()} noise, {'noisy' if targets == 'n2n' else 'clean'} targets",
        train=train,
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
    f"{noise}-{targets}": _photographs(noise, targets, strengths)
    for noise, strengths in {"gaussian": "sigma 0 to 50", "poisson": "up to 50 photons in white"}.items()
    for targets in ("n2n", "n2c")
}
RECIPES["mri-n2n"] = Recipe(
    title="MRI slices with undersampled k-space, undersampled targets",
    train=["config_mri.py", "train", "--minibatch-size", "2"],
    length="--num-epochs",
    validate={"sub-21 to sub-24": ["config_mri.py", "validate"]},
    final="network-final.pkl",
    curves=["test_db_clamped", "Loss"],
    data="400 axial slices of sub-01 to sub-20 of OpenNeuro ds002748 (CC0).",
    limits="Made for T1 slices of 255x255 without skull. Not for diagnosis.",
    clean_targets="--corrupt-targets=false",
)


def main():
    """Makes what is missing. Ends with the status of the first command that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all by default")
    parser.add_argument("--length", metavar="N", help="iterations or epochs, where not those of the settings")
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
    length = [recipe.length, length] if length else []
    train = recipe.train + length
    runs = {name: _train(name, train, length)}
    if recipe.clean_targets:
        rival = name.replace("n2n", "n2c")
        runs[rival] = _train(rival, [*train, recipe.clean_targets], length)
    run_script(
        *("benchmarks/plot_runs.py", *runs.values(), "--tags", *recipe.curves),
        *("--labels", *runs, "--out", f"networks/{name}.png"),
    )
    measured = []
    for label, words in recipe.validate.items():
        for run, run_dir in runs.items():
            command = shlex.join([*words, "--network-snapshot", snapshot])
            how = f"`python {command}`" if run == name else f"{run}, trained with `{recipe.clean_targets}`, not kept"
            measured.append((label, *_measure(words, os.path.join(run_dir, recipe.final)), how))
    with dnnlib.util.atomic_path(snapshot) as temporary:
        _copy_weights(os.path.join(runs[name], recipe.final), temporary)
        with open(temporary, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        with dnnlib.open_atomic(f"networks/{name}.md") as f:
            f.write(card(name, recipe, train, runs[name], digest, measured))
    print(f"Made {snapshot} and its card.")


def _train(name, train, length):
    """Trains by the command `train`, or goes on, or does nothing if that was done. Returns the run directory."""
    run_dir = _find_run(name)
    if run_dir is None:
        run_script(*train, "--desc", name, "--run-dir-root", RUNS)
    elif not os.path.exists(os.path.join(run_dir, "_finished.txt")):
        run_script(*train[:2], "--resume", run_dir, *length)
    return _find_run(name)


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


def card(name, recipe, train, run_dir, digest, measured):
    """The card of a network, in Markdown. measured: (what on, PSNR corrupted and restored, how) of each measurement."""
    run = load_submit_config(run_dir)
    settings = run.run_func_kwargs
    with open(os.path.join(run_dir, "log.txt"), encoding="utf-8") as f:
        log = f.read()
    precision, took = (re.findall(pattern, log)[-1] for pattern in (r"Precision: (\w+)", r"Elapsed time: (.*)"))
    length = settings.get("iteration_count") or settings.num_epochs
    rows = [
        ("network", f"`networks/{name}.pickle`, sha256 `{digest}`"),
        ("data", recipe.data),
        ("command", f"`python {shlex.join(train)}`"),
        ("seed", settings.seed),
        ("length", f"{length} {recipe.length.lstrip('-').removeprefix('num-')}, {settings.minibatch_size} at a time"),
        ("time", f"{took}, in {precision}, on a machine that did other work too"),
        ("commit", f"`{run.get('commit')}`"),
    ]
    lines = [f"# {name}: {recipe.title}", "", "| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""]
    lines += ["| measured on | corrupted | restored | by |", "| --- | --- | --- | --- |"]
    for label, before, after, how in measured:
        lines.append(f"| {label} | {before:.2f} dB | {after:.2f} dB | {how} |")
    lines += ["", f"![curves of the training]({name}.png)", "", recipe.limits, ""]
    lines += ["The weights are under the project's licence, [Apache 2.0](../LICENSE); the data: see above.", ""]
    return "\n".join(lines)


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
