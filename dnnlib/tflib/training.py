"""What every training does around its step: devices and workers, start or resume, checkpoints, stopping, the end.

A training function reads top to bottom with it:

    run = tflib.Training(submit_config, settings, "python config.py train --resume")
    ...                                                     # Load data.
    run.agree(data.checksum(), path_of_data, names_of_paths)
    with run.graph():
        minibatch = run.next_minibatch(dataset)
        ...                                                 # Construct the network and the loss.
        step = run.minimize(optimizer, loss, minibatch)
        with run.begin(iteration_count):
            for i in run.iterations(reporter.get_state):
                values = run.step(step, feed)
                ...                                         # Report.
"""

import contextlib

from ..sharding import split_minibatch
from ..submission import RunContext, newest_checkpoint
from ..util import Stopped, format_time
from .autosummary import Autosummary
from .checkpoint import Checkpoints, check_data
from .cluster import Cluster
from .optimizer import SkippedUpdates
from .tfutil import pick_devices, pick_dtype, tf


class Training:
    """A training run of one worker or several.

    Attributes:
        chief: Whether this worker owns the run directory, validates and prints.
        resuming: Whether the run goes on from a checkpoint.
        fresh: Whether this is the chief of a run that starts anew.
        shard: (number of this worker, number of workers).
        start, state: Iterations done before, and what the reporter's `get_state` returned then. Known after `agree`.
        dtype: Type in which the network computes. Known after `agree`.
        ctx: The RunContext. Known within `begin`.
    """

    def __init__(self, submit_config, settings, resume_command):
        """Args:
        submit_config: The run's SubmitConfig.
        settings: EasyDict with minibatch_size, microbatches, precision, checkpoint_minutes and seed.
        resume_command: Command that resumes a run when its directory is added, for messages.
        """
        self.settings, self._submit_config = settings, submit_config
        self._cluster = Cluster(submit_config, resume_command)
        self.chief, self.shard = self._cluster.first, (self._cluster.index, self._cluster.count)
        self.resuming = submit_config.resuming
        self.fresh = self.chief and not self.resuming
        self._milestone = False

    def agree(self, checksum, source, paths=()):
        """Pick devices and precision, find the checkpoint, and wait for the other workers.

        UserError if they differ, or the run to be resumed was trained on other data.

        Args:
            checksum: Checksum of the training data.
            source: File or folder of the training data, for messages.
            paths: Names of settings that may differ between workers.
        """
        s = self.settings
        self._devices = pick_devices(self._submit_config.num_gpus)
        self._parts = split_minibatch(s.minibatch_size, self.shard[1], len(self._devices), s.microbatches)
        self.dtype = pick_dtype(s.precision)
        start, state = 0, {}
        if self.resuming and self.chief:
            start, state = newest_checkpoint(self._submit_config.run_dir)
        self.start, self.state = self._cluster.agree(
            start, state, paths, data=checksum, computed_in=self.dtype.name, devices=len(self._devices)
        )
        check_data(self.state, checksum, source)
        self._checksum = checksum

    @contextlib.contextmanager
    def graph(self):
        """A graph and a session as defaults; yields the graph. The settings' seed is the graph's."""
        with tf.Graph().as_default() as graph, self._cluster.create_session(self.dtype) as self._session:
            tf.set_random_seed(self.settings.seed)
            yield graph

    def next_minibatch(self, dataset):
        """The next element of a tf.data.Dataset, as tensors."""
        self._iterator = tf.data.make_initializable_iterator(dataset)
        return self._iterator.get_next()

    def minimize(self, optimizer, loss, inputs):
        """`Optimizer.minimize` over the devices and workers of this run."""
        return optimizer.minimize(loss, inputs, self._devices, self._parts, self._cluster)

    @contextlib.contextmanager
    def begin(self, iteration_count, load=None):
        """The block in which the run takes place. All variables exist by now; they are initialised or restored.

        Args:
            iteration_count: Number of iterations of the whole run.
            load: Function that loads the network to start from, or None.
        """
        self._iteration_count = iteration_count
        self._checkpoints = Checkpoints(
            self._submit_config.run_dir, self.settings.checkpoint_minutes, data=self._checksum
        )
        share_variables = self._cluster.share_variables()
        self._session.run([tf.global_variables_initializer(), self._iterator.initializer])
        if load and self.fresh:
            load()
        elapsed = self.state.get("elapsed", 0.0)
        self.ctx = RunContext(self._submit_config, iteration_count, self.start, elapsed, stoppable=True)
        with self.ctx, self._cluster.running():
            if self.chief and self.resuming:
                self._checkpoints.restore(self.start)
                print(f"Resumed after iteration {self.start}.")
            self._session.run(share_variables)
            yield self.ctx
            if self.chief:
                print(f"Elapsed time: {format_time(self.ctx.time_since_start())}")

    def peek(self, tensors):
        """Values of tensors of the first minibatch, which the first step sees again."""
        values = self._session.run(tensors)
        self._session.run(self._iterator.initializer)
        return values

    def save(self, iteration, state):
        """Save a checkpoint with the reporter's `state`."""
        self._checkpoints.save(iteration, state)
        self._milestone = False

    def want_checkpoint(self):
        """Have a checkpoint saved at the end of this iteration."""
        self._milestone = True

    def iterations(self, get_state):
        """Yield the number of each iteration that is left. After each, save a checkpoint if due, and stop if asked.

        Args:
            get_state: Function that returns what a resumed run has to know, a dictionary that JSON can hold.
        """
        for i in range(self.start, self._iteration_count):
            yield i
            done, stop = i + 1, self._stop
            if self.chief and (self._milestone or stop or self._checkpoints.due()):
                self.save(done, get_state())
            if stop and done < self._iteration_count:
                raise Stopped(f"stopped by {stop} after iteration {done}; go on with: {self._cluster.resume_command}")

    def step(self, fetches, feed):
        """Run the training step; returns the values of `fetches`."""
        values, self._stop = self._cluster.run_step(fetches, feed, self.ctx.stop_reason)
        return values


class Reporter:
    """What a run tells while it trains: means of loss and learning rate, in TensorBoard."""

    def __init__(self, run, graph, rate_tag):
        """Args:
        run: The Training, within `begin`.
        graph: The graph, for TensorBoard.
        rate_tag: TensorBoard's tag of the learning rate.
        """
        self.ctx, self._rate_tag = run.ctx, rate_tag
        self.summary = Autosummary(run.ctx.run_dir, graph)
        self.summary.set_state(run.state.get("summary", {}))
        self._skipped = SkippedUpdates(run.state.get("skipped_in_a_row", 0))

    def get_state(self):
        """What a resumed run has to know, for the checkpoint."""
        self.summary.flush()
        return {
            "elapsed": self.ctx.time_since_start(),
            "summary": self.summary.get_state(),
            "skipped_in_a_row": self._skipped.in_a_row,
        }

    def add(self, iteration, loss, skipped, learning_rate):
        """Collect a training step. Stopped where too many updates in a row had to be skipped."""
        self.summary.add(**{self._rate_tag: learning_rate}, Train__overflow_frequency=skipped)
        if not skipped:
            self.summary.add(Loss=loss)
        self._skipped.count(iteration, skipped, loss, learning_rate)
        self.ctx.step(iteration + 1)
