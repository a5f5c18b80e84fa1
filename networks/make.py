"""Train the networks of this folder and write a card for each: `make networks`, or `python networks/make.py NAME ...`

The script prints and runs the ordinary commands. It continues where it was interrupted: it keeps the networks that
exist and resumes the runs that have begun. networks/README.md lists the data that it needs.
"""

import dataclasses
import hashlib
import os
import re
import shlex
import shutil

import dnnlib
from dnnlib.options import ArgumentParser
from dnnlib.submission import SOURCE_ROOT, load_submit_config
from dnnlib.util import run_script
from networks.runs import measure, train_or_resume

RUNS = "results/networks"
# Stages of a training: {name: options}. Each stage starts from the network of the stage before it. The networks for
# photographs start from the network `photographs`, which starts from random weights. The n2n and the n2c network share
# the stages with a constant learning rate and noisy targets. They differ in the last stage only, where the rate falls
# to zero and the targets are noisy (n2n) or clean (n2c).
PHOTOGRAPHS = {
    "photographs": ["--noise", "gaussian", "--iterations", "3000", "--ramp-down-part", "0"],
    "photographs.2": ["--noise", "gaussian", "--seed", "1001", "--iterations", "3500", "--ramp-down-part", "1"],
}
LONG = ["--learning-rate", "0.0006", "--moving-average", "0.999", "--ramp-down-part", "0"]
GAUSSIAN = {"common.gaussian": ["--noise", "gaussian", "--seed", "1003", "--iterations", "20000", *LONG]}
POISSON = {
    "common.poisson": [
        *("--noise", "poisson", "--balance", "--seed", "1005", "--iterations", "5000"),
        *("--minibatch-size", "4", "--crop-size", "128", *LONG),
    ],
}
COMMON = {"gaussian": GAUSSIAN, "poisson": GAUSSIAN | POISSON}
# The last stage has larger crops: after long training on small ones, some textures cause spots (docs/recipe.md).
END = [
    *("--learning-rate", "0.0004", "--iterations", "2500", "--ramp-down-part", "1"),
    *("--minibatch-size", "4", "--crop-size", "160"),
]
LAST = {
    "gaussian": ["--noise", "gaussian", "--seed", "1004", *END],
    "poisson": ["--noise", "poisson", "--balance", "--seed", "1006", *END],
}
TARGETS = {"n2n": [], "n2c": ["--noise2noise=false"]}
MRI = ["--optimizer", "muon", "--loss", "measured", "--minibatch-size", "2", "--num-epochs", "6"]
TEST_SETS = {"Kodak": "kodak", "BSDS300 test": "bsd300"}


@dataclasses.dataclass
class Recipe:
    """The training, the measurements and the description of a network."""

    title: str
    train: list  # Words of the training command: a program and its options.
    stages: dict  # {name: further options} of the stages.
    length: str  # The option that sets the length of a training.
    validate: dict  # {test set: words of the validation command}
    final: str  # File name of the run's last snapshot.
    curves: list  # TensorBoard tags of the plotted curves.
    data: str
    limits: str
    clean_targets: str = ""  # Option of a second training with clean targets; the card compares the two.
    start: str = ""  # The network of this folder that the first stage starts from; empty for random weights.


def _photographs(noise, title, stages, start=""):
    strengths = {"gaussian": "sigma 0 to 50", "poisson": "up to 50 photons in white"}[noise]
    return Recipe(
        title=f"photographs with {noise.capitalize()} noise, {title}",
        train=[
            *("config.py", "train", "--preset", "quick", "--train-tfrecords", "datasets/photos.tfrecords"),
            *("--validation-dir", "datasets/held_out"),
        ],
        stages=stages,
        length="--iterations",
        validate={
            name: ["config.py", "validate", "--noise", noise, "--dataset-dir", validation_set]
            for name, validation_set in TEST_SETS.items()
        },
        final="network_final.pickle",
        curves=["PSNR_avg_psnr", "Loss"],
        data="1,176 photographs: the 200 of BSDS300 train and one from each of 976 of ImageNet's 1,000 classes. The "
        "other 24 are the held-out photographs of the curve. Both sets are for non-commercial research.",
        limits=f"Trained for {noise.capitalize()} noise ({strengths}) on sRGB values, independent from pixel to pixel. "
        "It does not remove noise that a camera has processed or JPEG compression has blurred.",
        start=start,
    )


def _restorer(noise, targets):
    stages = COMMON[noise] | {f"{noise}-{targets}": [*LAST[noise], *TARGETS[targets]]}
    title = "noisy targets" if targets == "n2n" else "clean targets in the last stage"
    return _photographs(noise, title, stages, start="photographs")


RECIPES = {"photographs": _photographs("gaussian", "the start of the other networks", PHOTOGRAPHS)}
RECIPES |= {f"{noise}-{targets}": _restorer(noise, targets) for noise in COMMON for targets in TARGETS}
RECIPES["mri-n2n"] = Recipe(
    title="MRI slices with undersampled k-space, undersampled targets",
    train=["config_mri.py", "train"],
    stages={"mri-n2n": MRI},
    length="--num-epochs",
    validate={"sub-21 to sub-24": ["config_mri.py", "validate"]},
    final="network-final.pkl",
    curves=["test_db_clamped", "Loss"],
    data="400 axial slices of sub-01 to sub-20 of OpenNeuro ds002748 (CC0).",
    limits="Trained for T1 slices of 255x255 pixels without skull. Not for diagnosis.",
    clean_targets="--corrupt-targets=false",
)


@dataclasses.dataclass
class Run:
    """A finished stage of a training."""

    command: list  # Words after `python`.
    run_dir: str
    final: str  # Path of its last snapshot.


def main():
    """Make the missing networks. Exit with the status of the first command that fails."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"networks: {', '.join(RECIPES)}; default: all")
    parser.add_argument("--length", metavar="N", help="iterations or epochs of each stage, to try the script")
    args = parser.parse_args()
    if unknown := set(args.names) - RECIPES.keys():
        parser.error(f"{min(unknown)}: no such network; choose from {', '.join(RECIPES)}")
    dnnlib.util.require("matplotlib", "networks/make.py", "requirements-dev.txt")
    os.chdir(SOURCE_ROOT)
    for name in args.names or RECIPES:
        make(name, RECIPES[name], args.length)


def make(name, recipe, length=None):
    """Train, measure and describe a network, unless it exists."""
    snapshot = f"networks/{name}.pickle"
    if os.path.exists(snapshot):
        print(f"{snapshot} exists.")
        return
    if recipe.start:
        make(recipe.start, RECIPES[recipe.start], length)
    trained = {name: _train(recipe.train, recipe, length)}
    if recipe.clean_targets:
        rival = name.replace("n2n", "n2c")
        trained[rival] = _train([*recipe.train, recipe.clean_targets], recipe, length, {name: rival})
    curves = [",".join(run.run_dir for run in runs) for runs in trained.values()]
    run_script(
        *("networks/plot_runs.py", *curves, "--tags", *recipe.curves),
        *("--labels", *trained, "--out", f"networks/{name}.png"),
    )
    measured = []
    for label, words in recipe.validate.items():
        for who, runs in trained.items():
            command = shlex.join([*words, "--network-snapshot", snapshot])
            how = f"`python {command}`" if who == name else f"{who}, trained with `{recipe.clean_targets}`; not kept"
            measured.append((label, *measure(words, runs[-1].final, RUNS), how))
    with dnnlib.util.atomic_path(snapshot) as temporary:
        _copy_weights(trained[name][-1].final, temporary)
        with open(temporary, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        with dnnlib.open_atomic(f"networks/{name}.md") as f:
            f.write(card(name, recipe, trained[name], digest, measured))
    print(f"Made {snapshot} and its card.")


def _train(train, recipe, length=None, names=None):
    """Run or resume the stages of a training that have not finished.

    Args:
        train: Words of the training command.
        recipe: The Recipe.
        length: Length of each stage, instead of the recipe's.
        names: {name of a stage: name of its run}; default: the same.

    Returns:
        A list with the Run of each stage.
    """
    runs = []
    network = f"networks/{recipe.start}.pickle" if recipe.start else None
    for name, options in recipe.stages.items():
        desc = (names or {}).get(name, name)
        command = [*train, *options, *([recipe.length, length] if length else [])]
        command += ["--load-network", network] if network else []
        run_dir = train_or_resume(command, desc, RUNS)
        network = os.path.join(run_dir, recipe.final)
        runs.append(Run(command, run_dir, network))
    return runs


def _copy_weights(snapshot, path):
    """Copy a snapshot; leave out the optimiser's variables, which are two thirds of an MRI snapshot."""
    from dnnlib import tflib

    state = tflib.load_snapshot(snapshot)
    if "static_kwargs" in state:
        shutil.copyfile(snapshot, path)
    else:
        weights = {name: value for name, value in state.variables.items() if name.endswith(("/W", "/b"))}
        tflib.save_arrays(weights, path)


def card(name, recipe, runs, digest, measured):
    """Return the card of a network as Markdown.

    Args:
        name: Name of the network.
        recipe: Its Recipe.
        runs: The Run of each stage.
        digest: SHA-256 of the snapshot.
        measured: (test set, corrupted and restored PSNR in dB, command) of each measurement.
    """
    rows = [("network", f"`networks/{name}.pickle`, sha256 `{digest}`"), ("data", recipe.data)]
    if recipe.start:
        rows.append(("starts from", f"[{recipe.start}]({recipe.start}.md)"))
    for run in runs:
        rows += _describe(run, recipe.length)
    lines = [f"# {name}: {recipe.title}", "", "| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""]
    lines += ["| measured on | corrupted | restored | by |", "| --- | --- | --- | --- |"]
    for label, before, after, how in measured:
        lines.append(f"| {label} | {before:.2f} dB | {after:.2f} dB | {how} |")
    lines += ["", f"![curves of the training]({name}.png)", "", recipe.limits, ""]
    lines += ["The weights have the project's licence, [Apache 2.0](../LICENSE); the licence of the data is above.", ""]
    return "\n".join(lines)


def _describe(run, length_option):
    """Return the card's rows (name, text) about a run."""
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
        ("length", f"{length} {unit}, minibatches of {settings.minibatch_size}"),
        ("time", f"{took} in {precision}, on a machine shared with other work"),
        ("commit", f"`{submit_config.get('commit')}`"),
    ]


if __name__ == "__main__":
    dnnlib.cli_main(main)
