"""MRI reconstruction: every setting, and the commands that train and validate with them.

    python config_mri.py [options of train]
    python config_mri.py validate --network-snapshot results/00000-mri-.../network-final.pkl
    python config_mri.py reconstruct --kspace kspace.npy --out slices.nii.gz
    python config_mri.py export --network-snapshot network-final.pkl --out denoiser

To add a setting, declare it below and use it in the function of its command, where it arrives by its name.
"""

import os

import dnnlib
from dnnlib import EasyDict, launch
from dnnlib.options import (
    finite_number,
    flag,
    nonnegative_int,
    path,
    positive_int,
    positive_number,
    probability,
    seed,
)
from dnnlib.settings import REQUIRED, Command, Program, Setting

DESC = "mri"  # Run directories are NNNNN-<this><--desc>-<settings>.
NETWORK = "networks/mri-n2n.pickle"  # The network where --network-snapshot names none, in the program's folder.

# ----------------------------------------------------------------------------------------------------------------------
# Settings

COMMON = [
    *launch.RUN,
    launch.PRECISION,
    Setting("data_dir", "datasets", "Folder of the data sets.", path, metavar="DIR", may_change=True),
    Setting("valid_set", "ixi_valid.pkl", "Validation set, in that folder; dataset_tool_mri.py makes it.", path,
            metavar="FILE", may_change=True),
    Setting("p_at_edge", 0.025, "Probability of keeping a frequency at the middle of an edge of k-space.", probability,
            metavar="P"),
    Setting("post_op", "fspec", "Post-operation. fspec: the measured frequencies replace those of the output.",
            choices=("fspec", "none")),
    Setting("seed", 1000, "Seed of the initial weights, the order of slices, translations and undersampling.", seed,
            metavar="N"),
]  # fmt: skip

TRAIN = {
    "data": [
        Setting("train_set", "ixi_train.pkl", "Training set, in the folder of the data sets.", path, metavar="FILE",
                may_change=True),
        Setting("corrupt_targets", True, "Targets: other undersamplings of the same slice, or the clean slice.", flag),
        Setting("augment_translation", 64, "Maximum cyclic translation along both axes, in pixels.", nonnegative_int,
                metavar="PIXELS"),
        Setting("minibatch_size", 16, "Slices per minibatch.", positive_int, metavar="N"),
        launch.MICROBATCHES,
        Setting("load_network", None, "Network to start from; without it, random weights.", path, metavar="FILE"),
    ],
    "schedule": [
        Setting("num_epochs", 300, "Length of the run in epochs.", positive_int, metavar="N"),
        Setting("learning_rate", 0.001, "Maximum of the learning rate.", positive_number, metavar="RATE"),
        Setting("rampup_epochs", 10, "Epochs over which the learning rate rises at the start. In a run that is too "
                "short for both ramps they are shortened, unless one of them is given.", nonnegative_int, metavar="N"),
        Setting("rampdown_epochs", 30, "Epochs over which the learning rate falls at the end.", nonnegative_int,
                metavar="N"),
        Setting("beta1_rampdown", 0.5, "Value that beta1 approaches as the learning rate approaches 0.", probability,
                metavar="B"),
    ],
    "optimizer": [
        *launch.OPTIMIZER,
        Setting("loss", "image", "Squared error of the image, as published, or of the measured frequencies of the "
                "target, see mri/losses.py.", choices=("image", "measured")),
    ],
    "run": [
        Setting("snapshot_interval", 10, "Epochs between snapshots.", positive_int, metavar="N", may_change=True),
        launch.CHECKPOINT_MINUTES,
    ],
    "distributed": launch.DISTRIBUTED,
}  # fmt: skip

_SNAPSHOT = Setting("network_snapshot", None, f"Network. Default: {NETWORK}.", path, metavar="FILE")

VALIDATE = {"network": [_SNAPSHOT]}

RECONSTRUCT = {
    "slices": [
        Setting("kspace_file", REQUIRED, "Undersampled k-space, complex [255, 255] or [N, 255, 255], as .npy or .npz: "
                "zero frequency in the centre, 0 where nothing was measured.", path, metavar="FILE", option="--kspace"),
        Setting("out", REQUIRED, "Result: .nii, .nii.gz, or for one slice a 16-bit .png.", path, metavar="FILE"),
        Setting("sample_range", (0, 1), "Values of the images that are black and white.", finite_number, nargs=2,
                metavar=("LOW", "HIGH"), option="--range"),
    ],
    "network": [_SNAPSHOT, launch.PICTURE_PRECISION],
}  # fmt: skip

# ----------------------------------------------------------------------------------------------------------------------
# Commands: each gets all of its settings, and those that the command line gave.


def train(args, given):
    """Submit a training run, or resume one."""
    if args.resume:
        if "post_op" in given:
            given = given | {"post_op": _post_op(args)}
        launch.resume(args, given, "train_mri.train", PROGRAM.commands["train"], _needs_of_resumed)
        return
    if not {"rampup_epochs", "rampdown_epochs"} & given.keys():
        _fit_ramps(args)
    settings = PROGRAM.commands["train"].for_run(args)
    settings.post_op = _post_op(args)
    suffix = (
        f"-ixi_s-{'n2n' if args.corrupt_targets else 'n2c'}_-ep{args.num_epochs}-lr{args.learning_rate:f}"
        f"-Cbs{args.p_at_edge:f}-At{args.augment_translation}-P{args.post_op}{launch.target_name(args)}"
    )
    needs = _needs(args, args.train_set, args.valid_set)
    if args.load_network:
        needs[args.load_network] = ""
    launch.submit(args, given, DESC, suffix, "train_mri.train", settings, needs)


def validate(args, given):
    """Submit a validation run."""
    settings = PROGRAM.commands["validate"].for_run(args)
    settings.update(post_op=_post_op(args), network_snapshot=args.network_snapshot or launch.find_network(NETWORK))
    needs = {settings.network_snapshot: ""} | _needs(args, args.valid_set)
    launch.submit(args, given, DESC, "-validate", "mri.validation.validate", settings, needs)


def reconstruct(args, given):
    """Reconstruct slices from undersampled k-space."""
    black, white = args.sample_range
    if black >= white:
        raise dnnlib.UserError(f"--range {black:g} {white:g}: the first has to be less than the second")
    names = ("kspace_file", "out", "sample_range", "p_at_edge", "num_gpus", "precision")
    network = args.network_snapshot or launch.find_network(NETWORK)
    settings = EasyDict({name: args[name] for name in names}, post_op=_post_op(args), network_snapshot=network)
    launch.call(args, "mri.reconstruct.reconstruct", settings, {args.kspace_file: "", network: ""})


def export(args, given):
    """Write a network in another form."""
    settings = EasyDict(network_snapshot=args.network_snapshot, out=args.out)
    launch.call(args, "inference.export.export_mri", settings, {args.network_snapshot: ""})


COMMANDS = [
    Command(train, "Train a network.", TRAIN),
    Command(validate, "Measure a network on the validation set.", VALIDATE),
    Command(reconstruct, "Reconstruct slices from undersampled k-space.", RECONSTRUCT),
    Command(export, "Write a network as another kind of snapshot, as ONNX or as a SavedModel.", launch.EXPORT),
]
PROGRAM = Program(__doc__, COMMANDS, COMMON, default_command="train")


def main(argv=None):
    """The command `config_mri.py`. Usage errors exit with status 2."""
    PROGRAM.run(argv)


def _fit_ramps(args):
    """Shorten ramps that together exceed the run: to at most a tenth of it up and a third of it down."""
    if args.rampup_epochs + args.rampdown_epochs > args.num_epochs:
        args.rampup_epochs = min(args.rampup_epochs, args.num_epochs // 10)
        args.rampdown_epochs = min(args.rampdown_epochs, args.num_epochs // 3)


def _post_op(args):
    return None if args.post_op == "none" else args.post_op


def _needs(args, *data_sets):
    return {os.path.join(args.data_dir, name): "dataset_tool_mri.py makes it" for name in data_sets}


def _needs_of_resumed(settings):
    files = [os.path.join(settings.data_dir, name) for name in (settings.train_set, settings.valid_set)]
    return dict.fromkeys(files, "if it was moved, name its new place by --data-dir")


if __name__ == "__main__":
    dnnlib.cli_main(main)
