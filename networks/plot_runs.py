"""Curves of runs in one picture: `python networks/plot_runs.py RUN_DIR ... --out curves.png`.

RUN_DIR,RUN_DIR are stages of a training, plotted as one curve, one after the other.
"""

import os

import dnnlib
import dnnlib.tflib  # Before TensorBoard, which else has TensorFlow print notes on the CPU.
from dnnlib.options import ArgumentParser
from dnnlib.submission import load_submit_config


def main():
    """Plots scalars of the runs' TensorBoard files."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run_dirs", nargs="+", type=_stages, metavar="RUN_DIR")
    parser.add_argument("--tags", nargs="+", default=["PSNR_avg_psnr", "Loss"], metavar="TAG", help="one plot for each")
    parser.add_argument("--labels", nargs="+", metavar="TEXT", help="names of the runs; by default, their directories'")
    parser.add_argument("--out", required=True, metavar="FILE", help="*.png")
    args = parser.parse_args()
    dnnlib.util.require("matplotlib", "networks/plot_runs.py", "requirements-dev.txt")
    labels = args.labels or [os.path.basename(os.path.normpath(stages[0])) for stages in args.run_dirs]
    if len(labels) != len(args.run_dirs):
        parser.error(f"--labels: {len(labels)} for {len(args.run_dirs)} runs")
    plot([read_curves(stages, args.tags) for stages in args.run_dirs], labels, args.tags, args.out)


def _stages(text):
    return [os.path.expanduser(path) for path in text.split(",")]


def read_curves(stages, tags):
    """{tag: (steps, values)} of a training, whose runs are given in order. UserError where there is no such curve."""
    curves, offset = {tag: ([], []) for tag in tags}, 0
    for run_dir in stages:
        scalars = read_scalars(run_dir)
        for tag, (steps, values) in curves.items():
            if tag not in scalars:
                raise dnnlib.UserError(f"{run_dir}: has no curve '{tag}'; there are {', '.join(sorted(scalars))}")
            steps += [offset + step for step in scalars[tag][0]]
            values += scalars[tag][1]
        offset = max(steps[-1] for steps, _ in curves.values()) + 1
    return curves


def read_scalars(run_dir):
    """{tag: (steps, values)} of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    load_submit_config(run_dir)  # UserError where it is no run.
    events = EventAccumulator(run_dir)
    events.Reload()
    points = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if "/margin_" not in tag}
    return {tag: ([p.step for p in series], [p.value for p in series]) for tag, series in points.items()}


def plot(runs, labels, tags, path):
    """A plot for each tag, side by side, with a line for each run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, all_axes = pyplot.subplots(1, len(tags), figsize=(5 * len(tags), 3.5), layout="constrained", squeeze=False)
    for axes, tag in zip(all_axes[0], tags):
        for scalars, label, style in zip(runs, labels, ("-", "--", ":", "-.") * len(runs)):
            axes.plot(*scalars[tag], style, label=label, marker="o", markersize=3)
        axes.set_title(tag)
        axes.set_xlabel("iteration or epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0][0].legend()
    with dnnlib.util.atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    dnnlib.cli_main(main)
