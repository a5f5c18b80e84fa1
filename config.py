"""Image denoising: every setting, and the commands that train, validate and denoise with them.

    python config.py train --noise gaussian --train-tfrecords datasets/imagenet_val_raw.tfrecords
    python config.py validate --dataset-dir kodak --network-snapshot results/00000-.../network_final.pickle
    python config.py infer-image --image noisy.png --out denoised.png
    python config.py export --network-snapshot network_final.pickle --out denoiser
    python config.py preview --noise text --image photo.jpg
    python config.py compare --image photo.jpg --out compared.png text=results/00000-.../network_final.pickle

To add a setting, declare it below and use it in the function of its command, where it arrives by its name. To add a
command, write its function at the end of this file and list it in COMMANDS.
"""

import argparse
import glob
import os

import corruption
import dnnlib
from corruption import LOSSES, NOISE_MODELS
from dnnlib import EasyDict, launch
from dnnlib.options import (
    decay,
    flag,
    memory_size,
    multiple_of,
    one_of,
    part,
    path,
    positive_int,
    positive_number,
    range_end,
    seed,
)
from dnnlib.settings import REQUIRED, Command, Program, Setting
from imaging import scale

DESC = "autoencoder"  # Run directories are NNNNN-<this><--desc>-<N>gpu-L-<n2n or n2c>; L: local, S: SLURM.
# The networks of colour and of greyscale images where --network-snapshot names none, in the program's folder.
NETWORK = "networks/{noise}-n2n.pickle"
GREY_NETWORK = "networks/{noise}-grey-n2n.pickle"
VALIDATION_SETS = {  # Folders where each set may be.
    "kodak": ["datasets/kodak"],  # download_kodak.py fetches it.
    "bsd300": ["datasets/BSDS300/images/test", "datasets/BSDS300-images/BSDS300/images/test", "datasets/bsd300"],
    "set14": ["datasets/set14"],
    "bsd68": ["datasets/BSD68"],  # Greyscale.
}

# ----------------------------------------------------------------------------------------------------------------------
# Settings

_ADDED = [name for name in NOISE_MODELS if name != "none"]  # The noise models that corrupt a clean image.
_SETS = f"folder of clean images, or the name of a set: {', '.join(VALIDATION_SETS)}"
_CLEAN = "With --noise none: folder of clean images or second shots of the same names, for the PSNR."

TRAIN = {
    "data": [
        Setting("train_tfrecords", "datasets/imagenet_val_raw.tfrecords",
                "Training images: a file that dataset_tool_tf.py made.", path, metavar="FILE", may_change=True),
        Setting("validation_dir", "kodak", f"Validation images: {_SETS}.", path, metavar="DIR", may_change=True),
        Setting("reference_dir", None, _CLEAN, path, metavar="DIR", may_change=True),
        Setting("load_network", None, "Snapshot to start from; without it, random weights.", path, metavar="FILE"),
        Setting("minibatch_size", 4, "Crops per iteration.", positive_int, metavar="N"),
        launch.MICROBATCHES,
        Setting("channels", 3, "Channels of the images: 3, or 1 for greyscale, to which colour is converted.",
                one_of(1, 3), metavar="{1,3}"),
        Setting("crop_size", 256, "Side of the square crops in pixels, a multiple of 32.", multiple_of(32),
                metavar="N"),
        Setting("turn", False, "Turn and mirror crops at random. Noisy shots always are.", flag),
    ],
    "noise": [
        Setting("noise", "gaussian", "Noise model.", choices=NOISE_MODELS),
        *corruption.all_settings(),
        Setting("noise2noise", True, "Targets: other noisy versions of the input, or the clean images.", flag),
        Setting("loss", None, "Loss. Default: the one that suits the noise.", choices=LOSSES),
        Setting("balance", False,
                "Weight each crop inversely to its noise, so that the noisiest crops do not dominate the loss.", flag),
    ],
    "schedule": [
        Setting("preset", None, "Settings for a purpose, see PRESETS in config.py. Options override them.",
                choices=("quick", "thorough", "long"), launch=True),
        Setting("long_train", False, "The same as --preset long: the published 500,000 iterations.", flag, launch=True),
        Setting("iteration_count", 300_000, "Length of the run in iterations.", positive_int, metavar="N",
                option="--iterations", may_change=True),
        Setting("eval_interval", 1_000, "Iterations between evaluations.", positive_int, metavar="N", may_change=True),
        Setting("learning_rate", 3e-4, "Learning rate before it falls.", positive_number, metavar="RATE"),
        Setting("ramp_down_part", 0.3, "Part of the run, at its end, over which the learning rate falls to 0.", part,
                metavar="PART"),
    ],
    "optimizer": [
        *launch.OPTIMIZER,
        Setting("moving_average", 0.0, "Maximum decay of the exponential moving average (EMA) of the weights; the EMA "
                "weights are saved. 0 disables it.", decay, metavar="DECAY"),
    ],
    "run": [
        Setting("seed", 1000, "Seed of the initial weights, the crops, and the noise in training and validation.", seed,
                metavar="N"),
        launch.CHECKPOINT_MINUTES,
    ],
    "distributed": launch.DISTRIBUTED,
}  # fmt: skip

PRESETS: dict[str, dict] = {
    # A small budget: more and smaller crops, turned at random, Muon, EMA (docs/recipe.md).
    "quick": {
        "iteration_count": 6_500,
        "eval_interval": 1_000,
        "minibatch_size": 8,
        "crop_size": 96,
        "turn": True,
        "learning_rate": 1e-3,
        "ramp_down_part": 0.4,
        "optimizer": "muon",
        "moving_average": 0.998,
    },
    # The networks of this project: hours on two cores that compute bfloat16 natively.
    "thorough": {
        "iteration_count": 18_000,
        "eval_interval": 2_000,
        "minibatch_size": 4,
        "crop_size": 192,
        "turn": True,
        "learning_rate": 1e-3,
        "ramp_down_part": 0.7,
        "optimizer": "muon",
        "weight_decay": 0.3,
        "moving_average": 0.999,
    },
    "long": {"iteration_count": 500_000, "eval_interval": 5_000, "ramp_down_part": 0.5},  # The published networks.
}

_SNAPSHOT = Setting(
    "network_snapshot", None, f"Network. Default: {NETWORK.format(noise='<noise>')}, and for greyscale images "
    f"{GREY_NETWORK.format(noise='<noise>')}.", path, metavar="FILE",
)  # fmt: skip
_ENSEMBLE = Setting("ensemble", False, "Mean over the 8 turns and mirrors of each image; takes 8 times as long.", flag)
_NOISE_SEED = Setting("seed", 1000, "Seed of the noise.", seed, metavar="N")
_CORRUPTED = [Setting("noise", "gaussian", "Noise model.", choices=_ADDED), *corruption.all_settings(), _NOISE_SEED]

_RANGE = Setting(
    "sample_range", None, "Samples that are black and white, such as 0 4095 for 12 bits in 16; auto: the 0.1 and 99.9 "
    "% points. Samples beyond are not clipped. Default: as the network was trained, or the range of the type, 0 1 in "
    "floating point.", range_end, nargs="+", metavar=("LOW", "HIGH"), option="--range", aliases=("--float-range",),
)  # fmt: skip

VALIDATE = {
    "data": [
        Setting("dataset_dir", "kodak", f"Images: {_SETS}.", path, metavar="DIR"),
        Setting("reference_dir", None, _CLEAN, path, metavar="DIR"),
        _RANGE,
        _SNAPSHOT,
        _ENSEMBLE,
        Setting("save_images", True, "Write img_0_val_<index>_noisy.png, _pred.png, _orig.png of every image.", flag),
    ],
    "noise": [
        Setting("noise", "gaussian", "Noise model.", choices=NOISE_MODELS), *corruption.all_settings(), _NOISE_SEED
    ],
}  # fmt: skip

INFER = {
    "images": [
        Setting("image", REQUIRED, "Noisy images: files, folders with the folders below them, patterns.", path,
                nargs="+", metavar="FILE|DIR|GLOB"),
        Setting("out", REQUIRED, "Denoised image; its suffix names the format. For several images, or with a / at its "
                "end, a folder.", path, metavar="FILE|DIR"),
        Setting("compare", None, "Also write a picture: noisy, denoised, and 4 times what was removed, about mid-grey.",
                path, metavar="FILE|DIR"),
        _RANGE,
        Setting("noise_level", None, "Print each image's estimated noise, its sigma on 0..255.", choices=("auto",)),
    ],
    "network": [
        Setting("noise", None, "Noise model, which names the network unless --network-snapshot does. Default: camera, "
                "and for greyscale images gaussian.", choices=_ADDED),
        _SNAPSHOT,
        _ENSEMBLE,
        Setting("max_memory", "4GiB", "Memory of the process, such as 4GiB or 512MiB. Larger images are denoised in "
                "tiles, with the same result.", memory_size, metavar="SIZE"),
        launch.PICTURE_PRECISION,
    ],
}  # fmt: skip

_CROP = Setting("size", 192, "Side in pixels of the square that is cut from the centre of the image.", positive_int,
                metavar="N")  # fmt: skip
_CLEAN_IMAGE = Setting("image", REQUIRED, "Clean image.", path, metavar="FILE")

PREVIEW = {
    "image": [
        _CLEAN_IMAGE,
        Setting("out", "preview.png", "Sheet of pictures.", path, metavar="FILE"),
        _CROP,
        Setting("steps", 5, "Number of strengths that are shown, evenly spaced over the range of training; of each "
                "strength, where a noise model has two.", positive_int, metavar="N"),
    ],
    "noise": _CORRUPTED,
}  # fmt: skip


def noise_and_file(text):
    """(noise model, path) from NOISE=FILE."""
    noise, _, file = text.partition("=")
    if noise not in _ADDED or not file:
        raise argparse.ArgumentTypeError(f"'{text}' is not NOISE=FILE, NOISE one of {', '.join(_ADDED)}")
    return noise, path(file)


COMPARE = {
    "images": [
        Setting("networks", REQUIRED, "Noise model, at the strength of validation, and network for it.", noise_and_file,
                nargs="+", metavar="NOISE=FILE", option="networks"),
        _CLEAN_IMAGE,
        Setting("out", REQUIRED, "Sheet of pictures.", path, metavar="FILE"),
        _CROP,
        _NOISE_SEED,
        launch.PICTURE_PRECISION,
    ],
}  # fmt: skip

# ----------------------------------------------------------------------------------------------------------------------
# Commands: each gets all of its settings, and those that the command line gave.


def train(args, given):
    """Submit a training run, or resume one."""
    given = {name: validation_folder(value) if name == "validation_dir" else value for name, value in given.items()}
    if args.resume:
        command = PROGRAM.commands["train"]
        launch.resume(args, given, "train.train", command, _needs_of_resumed, length="iteration_count")
        return
    if args.long_train and args.preset:
        raise dnnlib.UserError(f"--long-train and --preset {args.preset} both say how long to train; leave one out")
    preset = PRESETS["long" if args.long_train else args.preset] if args.long_train or args.preset else {}
    args.update({name: value for name, value in preset.items() if name not in given})
    settings = _with_noise(PROGRAM.commands["train"].for_run(args), given)
    settings.validation_dir = validation_folder(args.validation_dir)
    settings.loss = args.loss or NOISE_MODELS[args.noise].loss
    if args.noise == "none" and not args.noise2noise:
        raise dnnlib.UserError("--noise2noise=false takes clean targets, and --noise none has none; leave one out")
    needs = {settings.train_tfrecords: "dataset_tool_tf.py makes it"}
    needs |= _needs_of_validation(settings, "--validation-dir", settings.validation_dir)
    if args.load_network:
        needs[args.load_network] = ""
    suffix = launch.target_name(args) + ("-n2n" if args.noise2noise else "-n2c")
    launch.submit(args, given, DESC, suffix, "train.train", settings, needs)


def validate(args, given):
    """Submit a validation run."""
    settings = _with_noise(PROGRAM.commands["validate"].for_run(args), given)
    settings.update(_networks(args), dataset_dir=validation_folder(args.dataset_dir))
    settings.sample_range = scale.parse_range(args.sample_range)
    needs = {settings.network_snapshot: ""} | _needs_of_validation(settings, "--dataset-dir", settings.dataset_dir)
    if args.noise == "none" and not args.reference_dir:
        raise dnnlib.UserError("--noise none: name images to compare with by --reference-dir")
    launch.submit(args, given, DESC, "-validate", "validation.validate", settings, needs)


def infer_image(args, given):
    """Denoise images as they are."""
    names = ("image", "out", "max_memory", "sample_range", "compare", "noise_level", "num_gpus", "precision")
    settings = EasyDict({name: args[name] for name in (*names, "ensemble")}, **_networks(args))
    settings.sample_range = scale.parse_range(args.sample_range)
    settings.mean_stays = args.noise is None or NOISE_MODELS[args.noise].mean_stays
    needs = [settings.network_snapshot, *(name for name in args.image if not glob.has_magic(name))]
    launch.call(args, "inference.denoise_files.infer_images", settings, dict.fromkeys(needs, ""))


def export(args, given):
    """Write a network in another form."""
    settings = EasyDict(network_snapshot=args.network_snapshot, out=args.out)
    launch.call(args, "inference.export.export", settings, {args.network_snapshot: ""})


def preview(args, given):
    """Show a noise model at several strengths."""
    names = ("noise", "image", "out", "size", "steps", "seed")
    settings = _with_noise(EasyDict({name: args[name] for name in names}), given)
    launch.call(args, "inference.preview.preview", settings, {args.image: ""})


def compare(args, given):
    """Show what networks do to an image."""
    names = ("networks", "image", "out", "size", "seed", "num_gpus", "precision")
    files = [args.image, *(file for _, file in args.networks)]
    settings = EasyDict({name: args[name] for name in names})
    launch.call(args, "inference.compare.compare", settings, dict.fromkeys(files, ""))


COMMANDS = [
    Command(train, "Train a network.", TRAIN),
    Command(validate, "Measure a network on a folder of clean images.", VALIDATE),
    Command(infer_image, "Denoise images as they are, of any size and kind.", INFER),
    Command(export, "Write a network as another kind of snapshot, as ONNX or as a SavedModel.", launch.EXPORT),
    Command(preview, "Show what a noise does to an image, over its range of strengths.", PREVIEW),
    Command(compare, "Show an image corrupted, restored and clean: a row for each network.", COMPARE),
]
PROGRAM = Program(__doc__, COMMANDS, [*launch.RUN, launch.PRECISION], default_command="train")


def main(argv=None):
    """The command `config.py`. Usage errors exit with status 2."""
    PROGRAM.run(argv)


def validation_folder(name):
    """The folder of a set from VALIDATION_SETS; any other name is a folder itself."""
    folders = VALIDATION_SETS.get(name, [name])
    return next(filter(os.path.isdir, folders), folders[0])


def _networks(args):
    """The network that is named, or those of this program for the noise, of which the images decide."""
    if args.network_snapshot:
        return {"network_snapshot": args.network_snapshot, "grey_snapshot": None}
    grey = launch.own_network(GREY_NETWORK.format(noise=args.noise or "gaussian"))
    colour = launch.find_network(NETWORK.format(noise=args.noise or "camera"), tell=not grey)
    return {"network_snapshot": colour, "grey_snapshot": grey}


def _with_noise(settings, given):
    """`settings` with `noise_settings`, those of the noise model, in place of the settings of all noise models."""
    chosen = corruption.chosen_settings(settings.noise, given)
    for setting in corruption.all_settings():
        settings.pop(setting.name, None)
    settings.noise_settings = corruption.create(settings.noise, **chosen).values
    return settings


def _needs_of_resumed(settings):
    _needs_of_validation(settings, "--validation-dir", settings.validation_dir)
    moved = {"--train-tfrecords": settings.train_tfrecords, "--validation-dir": settings.validation_dir}
    moved["--reference-dir"] = settings.reference_dir
    return {file: f"if it was moved, name its new place by {option}" for option, file in moved.items() if file}


def _needs_of_validation(settings, option, folder):
    """What validation reads, for `check_exist`. UserError where the folders do not go with the noise."""
    if settings.noise != "none":
        if settings.reference_dir:
            raise dnnlib.UserError(f"--reference-dir goes with --noise none only; the images of {option} are clean")
        wanted = "download_kodak.py fetches it" if folder in VALIDATION_SETS["kodak"] else f"a {_SETS} is needed"
        return {folder: wanted}
    if any(folder in folders for folders in VALIDATION_SETS.values()):
        raise dnnlib.UserError(f"--noise none: {folder} has clean images; name a folder of noisy ones by {option}")
    needs = {folder: "a folder of noisy images is needed"}
    if settings.reference_dir:
        needs[settings.reference_dir] = "a folder of clean images or second shots is needed"
    return needs


if __name__ == "__main__":
    dnnlib.cli_main(main)
