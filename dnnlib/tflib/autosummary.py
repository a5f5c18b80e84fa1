"""Scalars for TensorBoard: means since the last report, with margins of one standard deviation."""

import io
import math
from typing import Any

from .tfutil import tf


class Autosummary:
    """Collects values of named scalars and writes their means and mean +- std (in a custom-scalars layout).

    A scalar without values since the last report is not written.
    """

    def __init__(self, run_dir, graph=None):
        """Write event files into `run_dir`, with `graph` if given. With `run_dir` None, only collect."""
        self._writer: Any = tf.summary.FileWriter(run_dir, graph=graph) if run_dir else None
        self._moments = {}  # name -> [count, sum, sum of squares] since the last report.
        self._laid_out = []  # Names in the layout written last.

    def add(self, **values):
        """Collect values. Two underscores stand for a slash in the tag: `Timing__sec_per_iter=0.5`."""
        for name, value in values.items():
            moments = self._moments.setdefault(name.replace("__", "/"), [0, 0.0, 0.0])
            moments[0] += 1
            moments[1] += float(value)
            moments[2] += float(value) ** 2

    def get_state(self):
        """Return what was collected since the last report, as JSON data."""
        return self._moments

    def set_state(self, state):
        """Continue from the result of `get_state`."""
        self._moments = {name: list(moments) for name, moments in state.items()}

    def flush(self):
        """Flush the event file."""
        self._writer.flush()

    def mean(self, name):
        """Return the mean of the values collected since the last report; NaN if there are none."""
        count, total, _ = self._moments.get(name, (0, 0.0, 0.0))
        return total / count if count else float("nan")

    def add_image(self, name, picture, step):
        """Write the Pillow image `picture` under `name`."""
        png = io.BytesIO()
        picture.save(png, "png")
        width, height = picture.size
        image = tf.Summary.Image(height=height, width=width, encoded_image_string=png.getvalue())
        self._writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=name, image=image)]), step)

    def report(self, step):
        """Write the means since the last report at `step`, and start again."""
        summary = tf.Summary()
        for name, (count, total, squares) in self._moments.items():
            if not count:
                continue
            mean = total / count
            std = math.sqrt(max(squares / count - mean * mean, 0.0))
            for tag, value in ((name, mean), (_margin(name, "lo"), mean - std), (_margin(name, "hi"), mean + std)):
                summary.value.add(tag=tag, simple_value=value)
        if sorted(self._moments) != self._laid_out:
            self._laid_out = sorted(self._moments)
            self._writer.add_summary(_layout(self._laid_out))
        self._writer.add_summary(summary, step)
        self._writer.flush()
        self._moments = {name: [0, 0.0, 0.0] for name in self._moments}

    def close(self):
        """Close the event file."""
        self._writer.close()


def _layout(names):
    """Return a custom-scalars layout: one chart with margins per name, grouped by prefix (`Timing/iter`: `Timing`)."""
    from tensorboard.plugins.custom_scalar import layout_pb2
    from tensorboard.summary import v1 as summary

    charts = {}
    for name in names:
        margins = layout_pb2.MarginChartContent(
            series=[
                layout_pb2.MarginChartContent.Series(value=name, lower=_margin(name, "lo"), upper=_margin(name, "hi"))
            ]
        )
        charts.setdefault(name.split("/")[0], []).append(layout_pb2.Chart(title=name, margin=margins))
    categories = [layout_pb2.Category(title=title, chart=content) for title, content in charts.items()]
    return tf.Summary.FromString(summary.custom_scalar_pb(layout_pb2.Layout(category=categories)).SerializeToString())


def _margin(name, side):
    """Return the tag of a margin, which sorts to the bottom of the page of scalars.

    TensorBoard 2.21 draws margins only of tags that it also lists among the scalars: it finds no tag of another plugin.
    """
    return f"xCustomScalars/{name}/margin_{side}"
