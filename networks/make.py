"""Train the networks of this folder and write a card for each: `make networks`, or `python networks/make.py NAME ...`

The script prints and runs the ordinary commands. It continues where it was interrupted: it keeps the networks that
exist and resumes the runs that have begun. networks/README.md lists the data that it needs.
"""

import dataclasses
import hashlib
import os
import shlex
import shutil

import config
import dnnlib
from dnnlib.options import ArgumentParser, choice
from dnnlib.submission import SOURCE_ROOT, load_submit_config
from dnnlib.util import run_script
from networks.runs import measure, time_of, train_or_resume
from networks.spots import SPOT, table, worst_blocks

RUNS = "results/networks"
PHOTOGRAPHS = ["config.py", "train", "--preset", "thorough", "--train-tfrecords", "datasets/photos.tfrecords"]
PHOTOGRAPHS += ["--validation-dir", "datasets/held_out"]
# From the network for Gaussian noise, which is several decibels ahead of random weights.
FROM_GAUSSIAN = ["--learning-rate", "0.0005"]
MRI = ["--optimizer", "muon", "--loss", "measured", "--minibatch-size", "2", "--num-epochs", "6"]
TEST_SETS = {"Kodak": "kodak", "BSDS300 test": "bsd300"}


@dataclasses.dataclass
class Recipe:
    """The training, the measurements and the description of a network."""

    title: str
    train: list  # Words of the training command: a program and its options.
    length: str  # The option that sets the length of the training.
    validate: dict  # {test set: words of the validation command}
    final: str  # File name of the run's last snapshot.
    curves: list  # TensorBoard tags of the plotted curves.
    data: str
    limits: str
    spots: bool = False  # Whether the card states the worst spots, see networks/spots.py.
    clean_targets: str = ""  # Option of a second training with clean targets; the card compares the two.
    start: str = ""  # The network of this folder that the training starts from; empty for random weights.


def _photographs(noise, limits, options=(), iterations=6000, start="gaussian-n2n", spots=False, test_sets=TEST_SETS):
    """Return the Recipe of a network for photographs with the noise model `noise`."""
    options = [*(FROM_GAUSSIAN if start else []), "--iterations", str(iterations), *options]
    return Recipe(
        title=f"photographs, `--noise {noise}`, noisy targets",
        train=[*PHOTOGRAPHS, "--noise", noise, *options],
        length="--iterations",
        validate={
            name: ["config.py", "validate", "--noise", noise, "--dataset-dir", validation_set]
            for name, validation_set in test_sets.items()
        },
        final="network_final.pickle",
        curves=["PSNR_avg_psnr", "Loss"],
        data="1,100 photographs: the 200 of BSDS300 train and one from each of 900 of ImageNet's 1,000 classes. The "
        "other 100 are the held-out photographs of the curve. Both sets are for non-commercial research.",
        limits=f"Trained for {limits}.",
        start=start,
        spots=spots,
    )


_WHITE = "on sRGB values, independent from pixel to pixel; not for noise that a camera or JPEG compression has blurred"
_GAUSSIAN = f"Gaussian noise (sigma 0 to 50) {_WHITE}"
RECIPES = {
    "gaussian-n2n": _photographs("gaussian", _GAUSSIAN, iterations=18_000, start="", spots=True),
    "gaussian-grey-n2n": _photographs(
        "gaussian",
        _GAUSSIAN,
        ["--channels", "1"],
        iterations=3250,  # As many pixels as --preset quick.
        start="",
        spots=True,
        test_sets={"BSD68": "bsd68"},
    ),
    "poisson-n2n": _photographs(
        "poisson", f"Poisson noise (up to 50 photons in white) {_WHITE}", ["--balance"], spots=True
    ),
    "bernoulli-n2n": _photographs("bernoulli", "missing pixels that are black (up to 95 % of them)"),
    "text-n2n": _photographs("text", "text of random colours (up to half of the pixels under it)"),
    "impulse-n2n": _photographs("impulse", "pixels replaced by random colours (up to 95 % of them)"),
    "camera-n2n": _photographs("camera", "the noise of random digital cameras, with JPEG compression", spots=True),
}
RECIPES["mri-n2n"] = Recipe(
    title="MRI slices with undersampled k-space, undersampled targets",
    train=["config_mri.py", "train", *MRI],
    length="--num-epochs",
    validate={"sub-21 to sub-24": ["config_mri.py", "validate"]},
    final="network-final.pkl",
    curves=["test_db_clamped", "Loss"],
    data="400 axial slices of sub-01 to sub-20 of OpenNeuro ds002748 (CC0).",
    limits="Trained for T1 slices of 255x255 pixels without skull. Not for diagnosis.",
    clean_targets="--corrupt-targets=false",
)


def main():
    """Make the missing networks. Exit with the status of the first command that fails."""
    parser = ArgumentParser(description=__doc__)
    names = f"networks: {', '.join(RECIPES)}; default: all"
    parser.add_argument("names", nargs="*", type=choice(RECIPES), metavar="NAME", help=names)
    parser.add_argument("--length", metavar="N", help="iterations or epochs of each stage, to try the script")
    args = parser.parse_args()
    dnnlib.util.require("matplotlib", "networks/make.py", "-e '.[dev]'")
    os.chdir(SOURCE_ROOT)
    for name in args.names or RECIPES:
        make(name, RECIPES[name], args.length)


def make(name, recipe, length=None):
    """Train, measure and describe a network, unless it exists."""
    snapshot = f"networks/{name}.pickle"
    if os.path.exists(snapshot):
        print(f"{snapshot} exists.")
        return
    command = [*recipe.train, *([recipe.length, length] if length else [])]
    if recipe.start:
        make(recipe.start, RECIPES[recipe.start], length)
        command += ["--load-network", f"networks/{recipe.start}.pickle"]
    runs = {name: train_or_resume(command, name, RUNS)}
    if recipe.clean_targets:
        rival = name.replace("n2n", "n2c")
        runs[rival] = train_or_resume([*command, recipe.clean_targets], rival, RUNS)
    run_script(
        *("networks/plot_runs.py", *runs.values(), "--tags", *recipe.curves),
        *("--labels", *runs, "--out", f"networks/{name}.png"),
    )
    measured = []
    for label, words in recipe.validate.items():
        for who, run_dir in runs.items():
            own = f"`python {shlex.join([*words, '--network-snapshot', snapshot])}`"
            how = own if who == name else f"{who}, trained with `{recipe.clean_targets}`; not kept"
            measured.append((label, *measure(words, os.path.join(run_dir, recipe.final), RUNS), how))
    final = os.path.join(runs[name], recipe.final)
    spots = worst_blocks(final, [config.validation_folder(s) for s in TEST_SETS.values()]) if recipe.spots else None
    with dnnlib.util.atomic_path(snapshot) as temporary:
        _copy_weights(final, temporary)
        with open(temporary, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        with dnnlib.open_atomic(f"networks/{name}.md") as f:
            f.write(card(name, recipe, command, runs[name], digest, measured, spots))
    print(f"Made {snapshot} and its card.")


def _copy_weights(snapshot, path):
    """Copy a snapshot; leave out the optimiser's variables, which are two thirds of an MRI snapshot."""
    from dnnlib import tflib

    state = tflib.load_snapshot(snapshot)
    if "static_kwargs" in state:
        shutil.copyfile(snapshot, path)
    else:
        weights = {name: value for name, value in state.variables.items() if name.endswith(("/W", "/b"))}
        tflib.save_arrays(weights, path)


def card(name, recipe, command, run_dir, digest, measured, spots=None):
    """Return the card of a network as Markdown.

    Args:
        name: Name of the network.
        recipe: Its Recipe.
        command: Words after `python` of the training command.
        run_dir: Run directory of the training.
        digest: SHA-256 of the snapshot.
        measured: (test set, corrupted and restored PSNR in dB, command) of each measurement.
        spots: Rows of `worst_blocks` on the test sets, or None.
    """
    rows = [("network", f"`networks/{name}.pickle`, sha256 `{digest}`"), ("data", recipe.data)]
    rows += [("starts from", f"[{recipe.start}]({recipe.start}.md)" if recipe.start else "random weights")]
    rows += [("command", f"`python {shlex.join(command)}`"), *_describe(run_dir, recipe.length)]
    lines = [f"# {name}: {recipe.title}", "", "| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""]
    lines += ["| measured on | corrupted | restored | by |", "| --- | --- | --- | --- |"]
    for label, before, after, how in measured:
        lines.append(f"| {label} | {before:.2f} dB | {after:.2f} dB | {how} |")
    if spots:
        lines += [
            "",
            "How much further from the clean image the mean colour of a 32x32 block gets, as a fraction of the",
        ]
        lines += [f"range; more than {SPOT} is a spot. By `python networks/spots.py networks/{name}.pickle`:", ""]
        lines += table(spots)
    lines += ["", f"![curves of the training]({name}.png)", "", recipe.limits, ""]
    lines += ["The weights have the project's licence, [Apache 2.0](../LICENSE); the licence of the data is above.", ""]
    return "\n".join(lines)


def _describe(run_dir, length_option):
    """Return the card's rows (name, text) about a run."""
    submit_config = load_submit_config(run_dir)
    settings = submit_config.run_func_kwargs
    length = settings.get("iteration_count") or settings.num_epochs
    unit = length_option.lstrip("-").removeprefix("num-")
    return [
        ("seed", settings.seed),
        ("length", f"{length} {unit}, minibatches of {settings.minibatch_size}"),
        ("time", f"{time_of(run_dir)}, on a machine shared with other work"),
        ("commit", f"`{submit_config.get('commit')}`"),
    ]


if __name__ == "__main__":
    dnnlib.cli_main(main)
