"""Training of the MRI network on randomly undersampled k-space, with or without clean targets."""

import os
import time

import numpy as np

import dnnlib
from dnnlib import tflib
from dnnlib.sharding import split_minibatch
from dnnlib.submission import newest_checkpoint
from dnnlib.tflib import tf
from imaging import images
from mri import dataset_mri
from mri.model import Model
from mri.validation import save_examples


def ramps(epoch, num_epochs, rampup_epochs, rampdown_epochs):
    """Return the two ramp factors in [0, 1] of an epoch: the rise over the first epochs, the fall over the last.

    They are exp(-5 (1 - t)^2) and exp(-7.5 t^2), where t goes from 0 to 1 over the ramp.
    """
    start = num_epochs - rampdown_epochs
    rampup = np.exp(-5.0 * (1.0 - epoch / rampup_epochs) ** 2) if epoch < rampup_epochs else 1.0
    rampdown = np.exp(-7.5 * ((epoch - start) / rampdown_epochs) ** 2) if epoch > start else 1.0
    return rampup, rampdown


def schedule(epoch, num_epochs, learning_rate, beta1, beta1_rampdown, rampup_epochs, rampdown_epochs):
    """Return (learning rate, beta1) of an epoch. beta1 falls to `beta1_rampdown` as the learning rate falls to zero."""
    rampup, rampdown = ramps(epoch, num_epochs, rampup_epochs, rampdown_epochs)
    return learning_rate * rampup * rampdown, rampdown * beta1 + (1.0 - rampdown) * beta1_rampdown


def train(
    submit_config,
    data_dir,
    train_set,
    valid_set,
    num_epochs,
    minibatch_size,
    microbatches,
    schedule_settings,
    optimizer,
    adam,
    corruption,
    corrupt_targets,
    loss,
    augment_translation,
    post_op,
    load_network,
    precision,
    snapshot_interval,
    max_bad_updates,
    checkpoint_minutes,
    seed,
):
    """Trains a network and leaves it as `network-final.pkl`. The settings are explained in config_mri.py."""
    cluster = tflib.Cluster(submit_config, "python config_mri.py --resume")
    print("Loading training set.")
    train_data = dataset_mri.load(os.path.join(data_dir, train_set))
    valid_data = dataset_mri.load(os.path.join(data_dir, valid_set)) if cluster.first else None
    undersampling = dataset_mri.Undersampling(**corruption)
    settings = dataset_mri.Settings(undersampling, corrupt_targets, augment_translation)
    print(f"Bernoulli probability at edge = {undersampling.p_at_edge:.5f}")
    print(f"Average Bernoulli probability = {undersampling.probability.mean():.5f}")
    devices = tflib.pick_devices(submit_config.num_gpus)
    parts = split_minibatch(minibatch_size, cluster.count, len(devices), microbatches)
    dtype = tflib.pick_dtype(precision)
    steps = dataset_mri.minibatches_per_epoch(len(train_data), minibatch_size)
    iteration_count = num_epochs * steps
    start, state = newest_checkpoint(submit_config.run_dir) if submit_config.resuming and cluster.first else (0, {})
    paths = ("data_dir", "train_set", "valid_set", "load_network")  # May be others in each worker.
    checks = {"data": train_data.checksum(), "computed_in": dtype.name, "devices": len(devices)}
    start, state = cluster.agree(start, state, paths, **checks)
    tflib.check_data(state, checks["data"], os.path.join(data_dir, train_set))

    with tf.Graph().as_default() as graph, cluster.create_session(dtype) as session:
        tf.set_random_seed(seed)
        with tf.name_scope("data"):
            part = cluster.index, cluster.count
            batches = dataset_mri.minibatches(train_data, settings, seed, minibatch_size, start, iteration_count, part)
            iterator = tf.data.make_initializable_iterator(batches)
            elements = iterator.get_next()
        model = Model(post_op, dtype)
        rate = tf.placeholder(tf.float32, [])
        beta1 = tf.placeholder_with_default(schedule_settings["beta1"], [])  # Adam starts its power of beta1 with it.
        step = tflib.Optimizer(rate, beta1=beta1, **adam, kind=optimizer).minimize(
            model.losses[loss], elements, devices, parts, cluster
        )
        checkpoints = tflib.Checkpoints(submit_config.run_dir, checkpoint_minutes, checks["data"])
        share_variables = cluster.share_variables()
        session.run([tf.global_variables_initializer(), iterator.initializer])

        if cluster.first and load_network and not submit_config.resuming:
            model.load(load_network)
        ctx = dnnlib.RunContext(submit_config, iteration_count, start, state.get("elapsed", 0.0), stoppable=True)
        with ctx, cluster.running():
            reporter = _Reporter(ctx, model, valid_data, settings, seed, graph, max_bad_updates, state)
            if cluster.first and submit_config.resuming:
                checkpoints.restore(start)
                print(f"Resumed after {start} of {iteration_count} minibatches.")
            session.run(share_variables)
            if cluster.first and not submit_config.resuming:
                reporter.save_training_example(train_data)
                checkpoints.save(0, reporter.get_state())
            for i in range(start, iteration_count):
                epoch, last = i // steps, (i + 1) % steps == 0
                lr, b1 = schedule(epoch, num_epochs, **schedule_settings)
                (loss, _, skipped), stop = cluster.run_step(step, {rate: lr, beta1: b1}, ctx.stop_reason)
                reporter.add(i, loss, skipped, lr)
                ctx.step(i + 1)
                if cluster.first and last:
                    reporter.end_epoch(epoch, num_epochs, lr)
                    if epoch % snapshot_interval == 0:
                        model.save(ctx.path(f"network-snapshot-{epoch:05d}.pkl"))
                if cluster.first and (last or stop or checkpoints.due()):
                    checkpoints.save(i + 1, reporter.get_state())
                if stop and i + 1 < iteration_count:
                    raise dnnlib.Stopped(f"stopped by {stop} in epoch {epoch}; go on with: {cluster.resume_command}")
            if cluster.first:
                print("Saving final network weights.")
                model.save(ctx.path("network-final.pkl"))
                print("Resetting random seed and saving a bunch of example images.")
                save_examples(ctx, model, valid_data, settings, seed)
                reporter.summary.close()
                print(f"Elapsed time: {dnnlib.format_time(ctx.time_since_start())}")


class _Reporter:
    """What a run tells after every epoch: decibels, scalars, pictures."""

    def __init__(self, ctx, model, valid_data, settings, seed, graph, max_bad_updates, state):
        """`state`: of `get_state`; empty at the start."""
        self.ctx, self.model, self.valid_data, self.settings, self.seed = ctx, model, valid_data, settings, seed
        self.summary = tflib.Autosummary(ctx.run_dir, graph)
        self.summary.set_state(state.get("summary", {}))
        self._skipped = tflib.SkippedUpdates(max_bad_updates, state.get("skipped_in_a_row", 0))
        self._epoch_started = time.time() - state.get("epoch_seconds", 0.0)

    def get_state(self):
        """What a resumed run has to know, for the checkpoint."""
        self.summary.flush()
        return {
            "elapsed": self.ctx.time_since_start(),
            "epoch_seconds": time.time() - self._epoch_started,
            "summary": self.summary.get_state(),
            "skipped_in_a_row": self._skipped.in_a_row,
        }

    def add(self, iteration, loss, skipped, learning_rate):
        """Collects a training step. UserError where too many in a row had to be skipped."""
        self.summary.add(Learning_rate=learning_rate, Overflow_frequency=skipped)
        if not skipped:
            self.summary.add(Loss=loss)
        self._skipped.count(iteration, skipped, loss, learning_rate)

    def save_training_example(self, train_data):
        element = dataset_mri.training_element(train_data, self.settings, self.seed, 0, 0)
        images.save_uint8(self.ctx.path("example_train.png"), self.model.run([element])[0].picture())

    def end_epoch(self, epoch, num_epochs, learning_rate):
        """Validates, and tells how the epoch went."""
        seconds, clamped = time.time() - self._epoch_started, []
        for result in self.model.evaluate(self.valid_data, self.settings, self.seed):
            if not clamped:
                picture = result.picture()
            clamped.append(result.decibels()[-1])
        test_db, loss = np.mean(clamped), self.summary.mean("Loss")
        self.ctx.print(
            f"Epoch {epoch:3d}/{num_epochs}: time={seconds:7.3f}, train_loss={loss:.7f}, "
            f"test_db_clamped={test_db:.5f}, lr={learning_rate:f}"
        )
        images.save_uint8(self.ctx.path(f"img{epoch:05d}.png"), picture)
        self.summary.add_image("Validation/corrupted_output_restored_target", picture, epoch)
        self.summary.add(test_db_clamped=test_db, Timing__sec_per_epoch=seconds)
        self.summary.report(epoch)
        self._epoch_started = time.time()
        self.ctx.update(epoch + 1, test_db_clamped=f"{test_db:.5f}")
