"""MRI reconstruction: every setting, and the command that trains and validates with them.

    python config_mri.py [options of train]
    python config_mri.py validate --network-snapshot results/00000-mri-.../network-final.pkl
    python config_mri.py export --network-snapshot network-final.pkl --out denoiser

A command-line option overrides a setting of this file for one run.
"""

import os

import dnnlib
from dnnlib import EasyDict
from dnnlib.command_line import Parser, call, find_network, resume, submit, where_it_runs
from dnnlib.options import flag, nonnegative_int, positive_int, positive_number, probability, seed

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

DESC = "mri"  # The run directory is NNNNN-<this><--desc>-<settings>-<N>gpu-L; L: local, S: SLURM.

PRECISION = "auto"  # Of the network's arithmetic: float32, bfloat16, or auto: bfloat16 where the hardware has it.

DATA = EasyDict(
    data_dir="datasets",
    train_set="ixi_train.pkl",  # Made by dataset_tool_mri.py.
    valid_set="ixi_valid.pkl",
)

CORRUPTION = EasyDict(p_at_edge=0.025)  # Probability of keeping a frequency at the middle of an edge of k-space.

POST_OP = "fspec"  # Measured frequencies replace those of the network's output; None: they do not.

TRAIN = EasyDict(
    num_epochs=300,
    minibatch_size=16,
    microbatches=1,  # Parts of a minibatch, at least, that are computed one by one: less memory, the same gradients.
    schedule_settings=EasyDict(
        learning_rate=0.001,
        beta1=0.9,
        beta1_rampdown=0.5,  # Value that beta1 approaches as the learning rate approaches zero.
        rampup_epochs=10,  # Epochs over which the learning rate rises at the start, and
        rampdown_epochs=30,  # over which it falls at the end. See `_fit_ramps` for runs that are too short for both.
    ),
    optimizer="adam",  # Or "muon", which takes fewer iterations (dnnlib/tflib/muon.py).
    adam=EasyDict(beta2=0.99, epsilon=1e-8),
    corrupt_targets=True,  # Targets: True, other undersamplings of the same slice; False, the clean slices.
    loss="image",  # Squared error, published; or "measured": where the target was measured (mri/losses.py).
    augment_translation=64,  # Pixels, at most, in both axes, cyclically.
    max_bad_updates=100,  # Updates in a row that are not finite (each is skipped) before the run gives up.
    checkpoint_minutes=5,  # Minutes between checkpoints, which are made after every epoch besides.
    load_network=None,  # A network to start from.
    snapshot_interval=10,  # Epochs between snapshots.
)

NETWORK = "networks/mri-n2n.pickle"  # Validated where --network-snapshot names none; of the program's folder.

SEED = 1000  # Of the initial weights, the order of slices, translations and undersampling.

# ----------------------------------------------------------------------------------------------------------------------
# Command line


def main(argv=None):
    """The command `config_mri.py`. Usage errors exit with status 2."""
    args = _parser().parse(argv, default_command="train")
    {"train": _train, "validate": _validate, "export": _export}[args.command](args)


def _parser():
    parser = Parser(__doc__)
    parser.submission_options(SUBMIT)
    parser.precision_option(PRECISION, PRECISION)
    parser.common("--data-dir", default=DATA.data_dir, metavar="DIR", help="folder of the data sets")
    parser.common("--valid-set", default=DATA.valid_set, metavar="FILE", help="validation set, in that folder")
    parser.common("--p-at-edge", default=CORRUPTION.p_at_edge, type=probability, metavar="P", help="of undersampling")
    parser.common("--post-op", default=POST_OP or "none", choices=["fspec", "none"], help="post-operation")
    parser.common("--seed", default=SEED, type=seed, metavar="N", help="of everything random")

    schedule = TRAIN.schedule_settings
    train = parser.command("train", "train a network")
    option = train.add_argument
    option("--train-set", default=DATA.train_set, metavar="FILE", help="training set, in the same folder")
    option("--num-epochs", default=TRAIN.num_epochs, type=positive_int, metavar="N")
    option("--minibatch-size", default=TRAIN.minibatch_size, type=positive_int, metavar="N")
    option("--microbatches", default=TRAIN.microbatches, type=positive_int, metavar="N", help="parts, one by one")
    option(
        "--learning-rate", default=schedule.learning_rate, type=positive_number, metavar="RATE", help="at its highest"
    )
    parser.optimizer_option(train, TRAIN.optimizer)
    text = "epochs of the learning rate's %s; shorter in a run that is too short for both ramps, unless one is given"
    for name, what in (("rampup", "rise at the start"), ("rampdown", "fall at the end")):
        default = schedule[f"{name}_epochs"]
        option(f"--{name}-epochs", default=default, type=nonnegative_int, metavar="N", help=text % what)
    option("--beta1", default=schedule.beta1, type=probability, metavar="B", help="of Adam")
    option("--beta1-rampdown", default=schedule.beta1_rampdown, type=probability, metavar="B", help="its final value")
    option("--beta2", default=TRAIN.adam.beta2, type=probability, metavar="B", help="of Adam")
    option("--epsilon", default=TRAIN.adam.epsilon, type=positive_number, metavar="E", help="of Adam")
    option("--corrupt-targets", default=TRAIN.corrupt_targets, type=flag, nargs="?", const=True, help="noisy targets")
    option("--loss", default=TRAIN.loss, choices=("image", "measured"), help="where the squared error is taken")
    option("--augment-translation", default=TRAIN.augment_translation, type=nonnegative_int, metavar="PIXELS")
    option("--load-network", default=TRAIN.load_network, metavar="FILE", help="network to start from")
    option("--snapshot-interval", default=TRAIN.snapshot_interval, type=positive_int, metavar="N", help="in epochs")

    option("--checkpoint-minutes", default=TRAIN.checkpoint_minutes, type=positive_number, metavar="N")
    parser.training_options(train, SUBMIT)

    validate = parser.command("validate", "measure a network on the validation set")
    validate.add_argument("--network-snapshot", metavar="FILE", help=f"the network; None: {NETWORK}")

    parser.export_command()
    return parser


def _train(args):
    if args.resume:
        _resume(args)
        return
    settings = EasyDict(TRAIN, **DATA)
    settings.schedule_settings = EasyDict({name: args[name] for name in TRAIN.schedule_settings})
    if not {"rampup_epochs", "rampdown_epochs"} & args.given.keys():
        _fit_ramps(settings.schedule_settings, args.num_epochs)
    settings.adam = EasyDict({name: args[name] for name in TRAIN.adam})
    for name in settings:
        settings[name] = args.get(name, settings[name])
    settings.update(_common_settings(args))
    suffix = (
        f"-ixi_s-{'n2n' if settings.corrupt_targets else 'n2c'}_-ep{settings.num_epochs}-lr{args.learning_rate:f}"
        f"-Cbs{args.p_at_edge:f}-At{settings.augment_translation}-P{args.post_op}{where_it_runs(args)}"
    )
    needs = _needs(args, args.train_set, args.valid_set)
    if args.load_network:
        needs[args.load_network] = ""
    submit(args, DESC, suffix, "train_mri.train", settings, needs)


def _fit_ramps(schedule, num_epochs):
    """Shorten ramps that together exceed the run: to at most a tenth of it up and a third of it down."""
    if schedule.rampup_epochs + schedule.rampdown_epochs > num_epochs:
        schedule.rampup_epochs = min(schedule.rampup_epochs, num_epochs // 10)
        schedule.rampdown_epochs = min(schedule.rampdown_epochs, num_epochs // 3)


def _resume(args):
    if "post_op" in args.given:
        args.given["post_op"] = _post_op(args)
    may_change = ["precision", "snapshot_interval", "checkpoint_minutes", *DATA]  # The data may have been moved.

    def needs(settings):
        paths = [os.path.join(settings.data_dir, name) for name in (settings.train_set, settings.valid_set)]
        return dict.fromkeys(paths, "if it was moved, name its new place by --data-dir")

    resume(args, "train_mri.train", may_change, needs)


def _validate(args):
    snapshot = find_network(args.network_snapshot, NETWORK)
    settings = EasyDict(network_snapshot=snapshot, data_dir=args.data_dir, valid_set=args.valid_set)
    settings.update(_common_settings(args))
    needs = {snapshot: ""} | _needs(args, args.valid_set)
    submit(args, DESC, "-validate", "mri.validation.validate", settings, needs)


def _export(args):
    settings = EasyDict(network_snapshot=args.network_snapshot, out=args.out)
    call(args, "mri.validation.export", settings, {args.network_snapshot: ""})


def _common_settings(args):
    corruption = EasyDict(p_at_edge=args.p_at_edge)
    return {"corruption": corruption, "post_op": _post_op(args), "precision": args.precision, "seed": args.seed}


def _post_op(args):
    return None if args.post_op == "none" else args.post_op


def _needs(args, *data_sets):
    return {os.path.join(args.data_dir, name): "dataset_tool_mri.py makes it" for name in data_sets}


if __name__ == "__main__":
    dnnlib.cli_main(main)
