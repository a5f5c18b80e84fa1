"""Image denoising: every setting, and the command that trains, validates and denoises with them.

    python config.py train --noise gaussian --train-tfrecords datasets/imagenet_val_raw.tfrecords
    python config.py validate --dataset-dir kodak --network-snapshot results/00000-.../network_final.pickle
    python config.py infer-image --image noisy.png --out denoised.png
    python config.py export --network-snapshot network_final.pickle --out denoiser
    python config.py preview --noise text --image photo.jpg
    python config.py compare --image photo.jpg --out compared.png text=results/00000-.../network_final.pickle

A command-line option overrides a setting of this file for one run.
"""

import argparse
import glob
import os

import dnnlib
from corruption import CORRUPTIONS, LOSSES
from dnnlib import EasyDict
from dnnlib.command_line import Parser, call, find_network, resume, submit, where_it_runs
from dnnlib.options import (
    decay,
    finite_number,
    flag,
    memory_size,
    nonnegative_number,
    part,
    positive_int,
    positive_number,
    seed,
)

# ----------------------------------------------------------------------------------------------------------------------
# Settings

SUBMIT = EasyDict(
    run_dir_root="results",  # Where the numbered run directories are made.
    num_gpus=1,  # GPUs to use, in each worker. Without any, the CPU.
    submit="local",  # Where a training runs: "local", or "slurm" as a job.
    nodes=1,  # Of such a job, each with a worker.
    time=24 * 60,  # Minutes that the job has; when they are over, it is queued again and goes on.
    join_seconds=300,  # How long the workers of a distributed run wait for each other at its start.
)

DESC = "autoencoder"  # The run directory is NNNNN-<this><--desc>-<N>gpu-L-<n2n or n2c>; L: local, S: SLURM.

# Arithmetic of the network in training and validation: "float32", "bfloat16" or "auto", which is bfloat16 where the
# hardware computes it natively, else float32.
PRECISION = "auto"

NOISE = EasyDict(
    # Standard deviation on the scale of 0..255: in training drawn uniformly for each image, in validation fixed.
    gaussian=EasyDict(train_sigma=(0.0, 50.0), validation_sigma=25.0),
    # Photons in a white pixel, likewise.
    poisson=EasyDict(train_lambda=(0.001, 50.0), validation_lambda=30.0),
    # Probability that a pixel is missing.
    bernoulli=EasyDict(train_p=(0.0, 0.95), validation_p=0.5),
    # Part of the pixels under text; size of its letters in pixels; folder of .ttf and .otf files, None: Pillow's font.
    text=EasyDict(train_p=(0.0, 0.5), validation_p=0.25, font_size=(8, 40), font_dir=None),
    # Probability that a pixel is replaced by a random colour.
    impulse=EasyDict(train_p=(0.0, 0.95), validation_p=0.7),
    # Photographs of random cameras (camera.py). log_shot: log10 of the variance of shot noise where the sensor is full.
    # The others are drawn for each camera: blur of the brightness and the colour of the noise (standard deviations in
    # pixels), enlargement of the scene on the sensor, side of the image / side of the sensor, quality of JPEG.
    camera=EasyDict(
        train_log_shot=(-4.0, -2.0),
        validation_log_shot=-3.0,
        luma_blur=(0.0, 1.2),
        chroma_blur=(1.0, 6.0),
        enlargement=(1.0, 2.0),
        scale=(0.7, 1.0),
        quality=(65, 100),
    ),
    # Nothing is added: the images are noisy themselves. Training takes two shots of each scene.
    none=EasyDict(),
)
NOISE["poisson-gaussian"] = EasyDict(  # Both of the noises of a camera: of the light and of reading it out.
    train_lambda=(1.0, 100.0), validation_lambda=30.0, train_sigma=(0.0, 25.0), validation_sigma=10.0
)

TRAIN = EasyDict(
    train_tfrecords="datasets/imagenet_val_raw.tfrecords",  # Made by dataset_tool_tf.py.
    validation_dir="kodak",  # A folder of clean images, or a name from VALIDATION_SETS.
    reference_dir=None,  # With noise "none": clean images or second shots of those of validation_dir; None: no PSNR.
    noise="gaussian",  # A name from NOISE.
    loss=None,  # "l2", "l1" or "annealed" (see corruption.py); None: the one that belongs to the noise.
    balance=False,  # Whether crops count less the more noise is found in them, lest a few rule (docs/recipe.md).
    load_network=None,  # A snapshot to start from; None: random weights.
    noise2noise=True,  # Targets: True, other noisy versions of the input; False, the clean images.
    iteration_count=300_000,
    eval_interval=1_000,  # Iterations between evaluations.
    minibatch_size=4,  # Crops per iteration.
    microbatches=1,  # Parts of a minibatch, at least, that are computed one by one: less memory, the same gradients.
    crop_size=256,  # Side of the square crops, a multiple of 32.
    turn=False,  # Whether crops are turned and mirrored at random; those of noisy shots always are.
    learning_rate=3e-4,
    ramp_down_part=0.3,  # The part of the run, at its end, over which the learning rate falls to zero.
    optimizer="adam",  # Or "muon", which takes fewer iterations (dnnlib/tflib/muon.py).
    adam=EasyDict(beta1=0.9, beta2=0.99, epsilon=1e-8),
    weight_decay=0.0,  # Each iteration shrinks the kernels by this times the learning rate (decoupled weight decay).
    moving_average=0.0,  # Decay per iteration, at most, of an average of the weights that is saved instead; 0: none.
    max_bad_updates=100,  # Updates in a row that are not finite (each is skipped) before the run gives up.
    checkpoint_minutes=5,  # Minutes between checkpoints, which are made at every evaluation besides.
    seed=1000,  # Of the initial weights, the choice of crops, the noise of training and validation.
)

PRESETS = EasyDict(
    # For a small budget: more and smaller crops, turned at random, Muon, an average of the weights (docs/recipe.md).
    quick=EasyDict(
        iteration_count=6_500,
        eval_interval=1_000,
        minibatch_size=8,
        crop_size=96,
        turn=True,
        learning_rate=1e-3,
        ramp_down_part=0.4,
        optimizer="muon",
        moving_average=0.998,
    ),
)

LONG_TRAIN = EasyDict(iteration_count=500_000, eval_interval=5_000, ramp_down_part=0.5)  # The published networks.

NETWORK = "networks/{noise}-n2n.pickle"  # Used where --network-snapshot names none; of the program's folder.

VALIDATE = EasyDict(
    dataset_dir="kodak",
    reference_dir=None,  # With noise "none": clean images or second shots of those of dataset_dir.
    noise="gaussian",
    seed=1000,  # Of the noise.
    save_images=True,  # Whether pictures of every image are left in the run directory: noisy, denoised, clean.
)

INFER = EasyDict(
    noise="gaussian",
    max_memory="4GiB",  # Of the whole process; larger images are denoised in tiles, with the same result.
    sample_range=None,  # Samples that are black and white; None: 0 and 1 in floating point, else all of their type.
    precision="float32",  # The same picture on every machine. bfloat16 rounds to 8 significant bits.
)

PREVIEW = EasyDict(
    strengths=5,  # Of the training range, evenly spaced; of each, where a noise has two.
    size=192,  # Side in pixels of the square that is cut from the middle of the image.
    seed=1000,  # Of the noise.
)

COMPARE = EasyDict(
    size=192,  # Side in pixels of the square that is cut from the middle of the image.
    seed=1000,  # Of the noise, which has the strength of validation.
    precision="float32",
)

VALIDATION_SETS = EasyDict(  # Where each set may be.
    kodak=["datasets/kodak"],  # download_kodak.py
    bsd300=["datasets/BSDS300/images/test", "datasets/BSDS300-images/BSDS300/images/test", "datasets/bsd300"],
    set14=["datasets/set14"],
)


def validation_folder(name):
    """The folder of a set from VALIDATION_SETS; any other name is a folder itself."""
    folders = VALIDATION_SETS.get(name, [name])
    return next(filter(os.path.isdir, folders), folders[0])


# ----------------------------------------------------------------------------------------------------------------------
# Command line

_ADDED = [name for name in NOISE if name != "none"]  # The kinds of noise that can be shown on a clean image.


def main(argv=None):
    """The command `config.py`. Usage errors exit with status 2."""
    args = _parser().parse(argv, default_command="train")
    commands = {"train": _train, "validate": _validate, "infer-image": _infer_image, "export": _export}
    commands |= {"preview": _preview, "compare": _compare}
    commands[args.command](args)


def _parser():
    parser = Parser(__doc__)
    parser.submission_options(SUBMIT)
    parser.precision_option(
        PRECISION, f"{PRECISION}; for infer-image {INFER.precision}, for compare {COMPARE.precision}"
    )

    train = parser.command("train", "train a network")
    option = train.add_argument
    option("--noise", default=TRAIN.noise, choices=NOISE, help="kind of noise")
    option("--loss", default=TRAIN.loss, choices=LOSSES, help="loss; None: the one that belongs to the noise")
    option("--balance", type=flag, nargs="?", const=True, default=TRAIN.balance, help="weigh crops by their noise")
    option("--noise2noise", type=flag, nargs="?", const=True, default=TRAIN.noise2noise, help="noisy targets")
    option("--load-network", default=TRAIN.load_network, metavar="FILE", help="network to start from")
    option("--long-train", type=flag, nargs="?", const=True, default=False, help="the published 500,000 iterations")
    option("--train-tfrecords", default=TRAIN.train_tfrecords, metavar="FILE", help="training images")
    option(
        "--validation-dir", default=TRAIN.validation_dir, metavar="DIR", help="folder of clean images, or a set's name"
    )
    _reference_option(option, TRAIN)
    option("--preset", choices=PRESETS, help="settings that other options override; not with --long-train")
    given = {"default": argparse.SUPPRESS, "type": positive_int, "metavar": "N"}  # --long-train has other defaults.
    option("--iterations", dest="iteration_count", help="length of the run", **given)
    option("--eval-interval", help="iterations between evaluations", **given)
    option("--minibatch-size", default=TRAIN.minibatch_size, type=positive_int, metavar="N", help="crops per iteration")
    option("--microbatches", default=TRAIN.microbatches, type=positive_int, metavar="N", help="parts, one by one")
    option("--crop-size", default=TRAIN.crop_size, type=positive_int, metavar="N", help="side of a crop")
    option("--turn", type=flag, nargs="?", const=True, default=TRAIN.turn, help="turn and mirror crops at random")
    option("--learning-rate", default=TRAIN.learning_rate, type=positive_number, metavar="RATE")
    option("--ramp-down-part", default=TRAIN.ramp_down_part, type=part, metavar="PART", help="of the run, at its end")
    parser.optimizer_option(train, TRAIN.optimizer)
    option(
        "--weight-decay",
        default=TRAIN.weight_decay,
        type=nonnegative_number,
        metavar="D",
        help="decoupled weight decay of the kernels, per unit of learning rate",
    )
    option(
        "--moving-average", default=TRAIN.moving_average, type=decay, metavar="DECAY", help="of the weights; 0: none"
    )
    option("--seed", default=TRAIN.seed, type=seed, metavar="N", help="of everything random")

    option("--checkpoint-minutes", default=TRAIN.checkpoint_minutes, type=positive_number, metavar="N")
    parser.training_options(train, SUBMIT)

    validate = parser.command("validate", "measure a network on a folder of clean images")
    option = validate.add_argument
    option(
        "--dataset-dir", default=VALIDATE.dataset_dir, metavar="DIR", help="folder of clean images, or name of a set"
    )
    _reference_option(option, VALIDATE)
    _network_option(option)
    option("--noise", default=VALIDATE.noise, choices=NOISE, help="kind of noise")
    option("--seed", default=VALIDATE.seed, type=seed, metavar="N", help="of the noise")
    option(
        "--save-images",
        type=flag,
        nargs="?",
        const=True,
        default=VALIDATE.save_images,
        help="write img_0_val_<index>_noisy.png, _pred.png and _orig.png of every image",
    )

    infer = parser.command("infer-image", "denoise images as they are, of any size and kind")
    option = infer.add_argument
    option(
        "--image",
        required=True,
        nargs="+",
        metavar="FILE|DIR|GLOB",
        help="noisy images; of a folder, those in the folders below it too",
    )
    option(
        "--out",
        required=True,
        metavar="FILE|DIR",
        help="denoised image, whose suffix names the format; for several images, or with a / at its end, a folder",
    )
    _network_option(option)
    option("--noise", default=INFER.noise, choices=_ADDED, help="kind of noise: picks the network if none is named")
    option("--max-memory", default=INFER.max_memory, type=memory_size, metavar="SIZE", help="such as 4GiB or 512MiB")
    option(
        "--range",
        "--float-range",
        dest="sample_range",
        default=INFER.sample_range,
        type=finite_number,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="samples that are black and white, such as 0 4095 for 12 bits in 16; None: 0 and 1 in floating point, "
        "else all of their type. Samples beyond are not clipped",
    )
    option(
        "--compare",
        metavar="FILE|DIR",
        help="also a picture: noisy | denoised | what was removed, 4 times, about mid-grey",
    )
    option("--noise-level", choices=["auto"], help="print each image's estimated noise: its sigma on 0..255")

    parser.export_command()

    preview = parser.command("preview", "show what a noise does to an image, over its range of strengths")
    option = preview.add_argument
    option("--noise", default=TRAIN.noise, choices=_ADDED, help="kind of noise")
    option("--image", required=True, metavar="FILE", help="clean image")
    option("--out", default="preview.png", metavar="FILE", help="the sheet of pictures")
    option("--seed", default=PREVIEW.seed, type=seed, metavar="N", help="of the noise")

    compare = parser.command("compare", "show an image corrupted, restored and clean: a row for each network")
    option = compare.add_argument
    option("networks", nargs="+", type=_noise_and_file, metavar="NOISE=FILE", help="kind of noise, and network for it")
    option("--image", required=True, metavar="FILE", help="clean image")
    option("--out", required=True, metavar="FILE", help="the sheet of pictures")
    option("--seed", default=COMPARE.seed, type=seed, metavar="N", help="of the noise")
    return parser


def _noise_and_file(text):
    noise, _, path = text.partition("=")
    if noise not in _ADDED or not path:
        raise argparse.ArgumentTypeError(f"'{text}' is not NOISE=FILE, NOISE one of {', '.join(_ADDED)}")
    return noise, os.path.expanduser(path)


def _network_option(option):
    option("--network-snapshot", metavar="FILE", help=f"the network; None: {NETWORK.format(noise='NOISE')}")


def _find_network(args):
    return find_network(args.network_snapshot, NETWORK.format(noise=args.noise))


def _reference_option(option, defaults):
    help_text = "with --noise none: folder of clean images, or of second shots, under the same names"
    option("--reference-dir", default=defaults.reference_dir, metavar="DIR", help=help_text)


def _train(args):
    if args.resume:
        _resume(args)
        return
    settings = EasyDict({name: args.get(name, value) for name, value in TRAIN.items()})
    for group in (LONG_TRAIN if args.long_train else {}, PRESETS.get(args.preset, {})):
        settings.update({name: value for name, value in group.items() if name not in args.given})
    settings.validation_dir = validation_folder(args.validation_dir)
    settings.noise_settings = NOISE[settings.noise]
    settings.precision = args.precision
    settings.loss = settings.loss or CORRUPTIONS[settings.noise].loss
    if args.long_train and args.preset:
        raise dnnlib.UserError(f"--long-train and --preset {args.preset} both say how long to train; leave one out")
    if settings.crop_size % 32:
        raise dnnlib.UserError(f"--crop-size {settings.crop_size} is not a multiple of 32")
    if settings.noise == "none" and not settings.noise2noise:
        raise dnnlib.UserError("--noise2noise=false takes clean targets, and --noise none has none; leave one out")
    needs = {settings.train_tfrecords: "dataset_tool_tf.py makes it"}
    needs |= _validation_needs(settings, "--validation-dir", settings.validation_dir)
    if args.load_network:
        needs[args.load_network] = ""
    suffix = where_it_runs(args) + ("-n2n" if settings.noise2noise else "-n2c")
    submit(args, DESC, suffix, "train.train", settings, needs)


def _resume(args):
    may_change = ["iteration_count", "eval_interval", "precision", "checkpoint_minutes"]
    may_change += ["train_tfrecords", "validation_dir", "reference_dir"]  # They may have been moved.
    if "validation_dir" in args.given:
        args.given["validation_dir"] = validation_folder(args.validation_dir)

    def needs(settings):
        _validation_needs(settings, "--validation-dir", settings.validation_dir)
        moved = {"--train-tfrecords": settings.train_tfrecords, "--validation-dir": settings.validation_dir}
        moved["--reference-dir"] = settings.reference_dir
        return {path: f"if it was moved, name its new place by {option}" for option, path in moved.items() if path}

    resume(args, "train.train", may_change, needs, length=("iteration_count", "--iterations"))


def _validate(args):
    settings = EasyDict(
        network_snapshot=_find_network(args),
        dataset_dir=validation_folder(args.dataset_dir),
        reference_dir=args.reference_dir,
        noise=args.noise,
        noise_settings=NOISE[args.noise],
        precision=args.precision,
        seed=args.seed,
        save_images=args.save_images,
    )
    needs = {settings.network_snapshot: ""} | _validation_needs(settings, "--dataset-dir", settings.dataset_dir)
    if settings.noise == "none" and not settings.reference_dir:
        raise dnnlib.UserError("--noise none: name images to compare with by --reference-dir")
    submit(args, DESC, "-validate", "validation.validate", settings, needs)


def _infer_image(args):
    names = ["image", "out", "max_memory", "sample_range", "compare", "noise_level", "num_gpus"]
    settings = EasyDict({name: args[name] for name in names}, network_snapshot=_find_network(args))
    settings.precision = args.given.get("precision", INFER.precision)
    black, white = settings.sample_range or (0, 1)
    if black >= white:
        raise dnnlib.UserError(f"--range {black:g} {white:g}: the first has to be less than the second")
    needs = [settings.network_snapshot, *(path for path in args.image if not glob.has_magic(path))]
    call(args, "inference.denoise_files.infer_images", settings, dict.fromkeys(needs, ""))


def _export(args):
    settings = EasyDict(network_snapshot=args.network_snapshot, out=args.out)
    call(args, "inference.export.export", settings, {args.network_snapshot: ""})


def _preview(args):
    given = {name: args[name] for name in ("noise", "image", "out", "seed")}
    settings = EasyDict(PREVIEW | given, noise_settings=NOISE[args.noise])
    call(args, "inference.preview.preview", settings, {args.image: ""})


def _compare(args):
    given = {name: args[name] for name in ("image", "out", "num_gpus", "seed")}
    given |= {"precision": args.given.get("precision", COMPARE.precision)}
    settings = EasyDict(COMPARE | given, networks=[(noise, NOISE[noise], path) for noise, path in args.networks])
    files = [args.image, *(path for _, path in args.networks)]
    call(args, "inference.compare.compare", settings, dict.fromkeys(files, ""))


def _validation_needs(settings, option, folder):
    """What validation reads, for `check_exist`. UserError where the folders do not go with the kind of noise."""
    if settings.noise != "none":
        if settings.reference_dir:
            raise dnnlib.UserError(f"--reference-dir goes with --noise none only; of {option} the images are clean")
        is_kodak = folder in VALIDATION_SETS.kodak
        wanted = f"a folder of clean images is needed, or the name of a set: {', '.join(VALIDATION_SETS)}"
        return {folder: "download_kodak.py fetches it" if is_kodak else wanted}
    if any(folder in folders for folders in VALIDATION_SETS.values()):
        raise dnnlib.UserError(f"--noise none: {folder} has clean images; name a folder of noisy ones by {option}")
    needs = {folder: "a folder of noisy images is needed"}
    if settings.reference_dir:
        needs[settings.reference_dir] = "a folder of clean images or second shots is needed"
    return needs


if __name__ == "__main__":
    dnnlib.cli_main(main)
