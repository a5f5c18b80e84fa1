"""Scalars for TensorBoard: mean since the last report, with margins of one standard deviation."""

import math

from .tfutil import tf


class Autosummary:
    """Collects values of named scalars; each report writes their means and, in a custom-scalars layout, mean +- std.

    A scalar for which nothing was collected since the last report is not written: no NaN, no stale point.
    """

    def __init__(self, run_dir, graph=None):
        """Writes event files into `run_dir`, with `graph` if given. Without a directory it only collects."""
        self._writer = tf.summary.FileWriter(run_dir, graph=graph) if run_dir else None
        self._moments = {}  # name -> [count, sum, sum of squares] since the last report.
        self._laid_out = []  # Names in the layout as last written.

    def add(self, **values):
        """Collects values; a tag's slash is written as two underscores: `Timing__sec_per_iter=0.5`."""
        for name, value in values.items():
            moments = self._moments.setdefault(name.replace("__", "/"), [0, 0.0, 0.0])
            moments[0] += 1
            moments[1] += float(value)
            moments[2] += float(value) ** 2

    def get_state(self):
        """What was collected since the last report, as JSON can hold it."""
        return self._moments

    def set_state(self, state):
        """Goes on from what `get_state` gave."""
        self._moments = {name: list(moments) for name, moments in state.items()}

    def flush(self):
        """Brings what was written to the file."""
        self._writer.flush()

    def mean(self, name):
        """Mean of what was collected since the last report; NaN if nothing was."""
        count, total, _ = self._moments.get(name, (0, 0.0, 0.0))
        return total / count if count else float("nan")

    def add_image(self, name, pixels, step):
        """Writes uint8 pixels [H, W] or [3, H, W] as the image `name`."""
        import io

        from PIL import Image

        pixels = pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "png")
        height, width = pixels.shape[:2]
        image = tf.Summary.Image(height=height, width=width, encoded_image_string=png.getvalue())
        self._writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=name, image=image)]), step)

    def report(self, step):
        """Writes all means collected since the last report at `step`, and starts anew."""
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
        """Flushes and closes the event file."""
        self._writer.close()


def _layout(names):
    """A custom-scalars chart with margins for each name, in a category per leading path: `Timing/iter` in `Timing`."""
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
    return f"xCustomScalars/{name}/margin_{side}"  # One group at the bottom of TensorBoard's scalars page.
