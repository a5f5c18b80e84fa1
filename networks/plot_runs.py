"""Plot curves of runs in one picture: `python networks/plot_runs.py RUN_DIR ... --out curves.png`"""

import itertools
import os

import dnnlib
import dnnlib.tflib  # Import this before TensorBoard, so that TensorFlow prints no notes about the CPU.
from dnnlib.options import ArgumentParser, path
from dnnlib.submission import load_submit_config


def main():
    """Plot scalars from the runs' TensorBoard files."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run_dirs", nargs="+", type=path, metavar="RUN_DIR")
    parser.add_argument(
        "--tags", nargs="+", default=["PSNR_avg_psnr", "Loss"], metavar="TAG", help="curves; each has its own plot"
    )
    parser.add_argument("--labels", nargs="+", metavar="TEXT", help="names of the runs; default: their directories")
    parser.add_argument("--out", required=True, metavar="FILE", help="*.png")
    args = parser.parse_args()
    dnnlib.util.require("matplotlib", "networks/plot_runs.py", "-e '.[dev]'")
    labels = args.labels or [os.path.basename(os.path.normpath(run_dir)) for run_dir in args.run_dirs]
    if len(labels) != len(args.run_dirs):
        parser.error(f"--labels: {len(labels)} for {len(args.run_dirs)} runs")
    runs = [read_curves(run_dir, args.tags) for run_dir in args.run_dirs]
    plots = {tag: {label: curves[tag] for label, curves in zip(labels, runs)} for tag in args.tags}
    plot(plots, args.out, "iteration or epoch")


def read_curves(run_dir, tags):
    """Return {tag: (steps, values)} of a run. UserError if it lacks a curve."""
    scalars = read_scalars(run_dir)
    for tag in tags:
        if tag not in scalars:
            raise dnnlib.UserError(f"{run_dir}: has no curve '{tag}'; choose from {', '.join(sorted(scalars))}")
    return {tag: scalars[tag] for tag in tags}


def read_scalars(run_dir):
    """Return {tag: (steps, values)} of a run, without the PSNR of its initial weights, which would squeeze the rest."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    load_submit_config(run_dir)  # UserError if it is not a run.
    events = EventAccumulator(run_dir)
    events.Reload()
    points = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"] if "/margin_" not in tag}
    if "PSNR_avg_psnr" in points:
        points["PSNR_avg_psnr"] = [point for point in points["PSNR_avg_psnr"] if point.step > 0]
    return {tag: ([p.step for p in series], [p.value for p in series]) for tag, series in points.items()}


def plot(plots, path, xlabel, ylabel=""):
    """Write a picture with plots side by side.

    Args:
        plots: {title: {label: (steps, values)}}. Each plot has a line for each label.
        path: PNG file.
        xlabel: Label of every plot's x axis.
        ylabel: Label of the first plot's y axis.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(plots)
    figure, all_axes = pyplot.subplots(1, count, figsize=(4 * count, 3.5), layout="constrained", squeeze=False)
    for axes, (title, lines) in zip(all_axes[0], plots.items()):
        for (label, points), style in zip(lines.items(), itertools.cycle(("-", "--", ":", "-."))):
            axes.plot(*points, style, label=label, marker="o", markersize=3)
        axes.set(title=title, xlabel=xlabel)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0][0].set_ylabel(ylabel)
    all_axes[0][0].legend()
    with dnnlib.util.atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    dnnlib.cli_main(main)
