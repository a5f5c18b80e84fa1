"""Training of the RGB network on corrupted images, with or without clean targets."""

import time

import numpy as np

import corruption
import dataset
import dnnlib
from dnnlib import tflib
from dnnlib.sharding import split_minibatch
from dnnlib.submission import newest_checkpoint
from dnnlib.tflib import tf
from imaging import images
from network import create_autoencoder, load_values
from validation import ValidationSet

PREVIEWS = 3  # Validation images saved and shown in TensorBoard at every evaluation.


def learning_rate_at(iteration, iteration_count, ramp_down_part, learning_rate):
    """Constant, then ramped down over the last part of the run: lr (0.5 + cos(pi t) / 2)^2, t from 0 to 1."""
    ramp_start = iteration_count * (1 - ramp_down_part)
    if iteration <= ramp_start:
        return learning_rate
    t = (iteration - ramp_start) / (iteration_count * ramp_down_part)
    return learning_rate * (0.5 + np.cos(np.pi * t) / 2) ** 2


def decay_at(iteration, moving_average):
    """Decay of the average of the weights: at first less, lest the initial ones weigh for thousands of iterations.

    The rule of TensorFlow's ExponentialMovingAverage: the smaller of the setting and (1 + i) / (10 + i).
    """
    return min(moving_average, (1 + iteration) / (10 + iteration))


def crop_weights(noisy, output):
    """[N, 3, H, W] twice -> [N, 1, 1, 1]: about 1 / RMS of the noise that the network finds, 1 where that is 25/255.

    Without them most of the mean over crops comes from the few with the strongest noise. As they depend on the input
    alone (no gradient passes), the output that minimises the mean loss for an input stays the same.
    """
    found = tf.reduce_mean(tf.square(tf.stop_gradient(output) - noisy), axis=[1, 2, 3], keepdims=True)
    return 25 / 255 * tf.math.rsqrt(found + (5 / 255) ** 2)


def train(
    submit_config,
    train_tfrecords,
    validation_dir,
    reference_dir,
    noise,
    noise_settings,
    loss,
    load_network,
    noise2noise,
    iteration_count,
    eval_interval,
    minibatch_size,
    microbatches,
    crop_size,
    turn,
    learning_rate,
    ramp_down_part,
    optimizer,
    adam,
    weight_decay,
    moving_average,
    precision,
    max_bad_updates,
    checkpoint_minutes,
    seed,
    balance=False,  # Runs begun when there was no such setting are resumed without it.
):
    """Trains a network and leaves it as `network_final.pickle`. The settings are explained in config.py."""
    cluster = tflib.Cluster(submit_config, "python config.py train --resume")
    start, state = newest_checkpoint(submit_config.run_dir) if submit_config.resuming and cluster.first else (0, {})
    noise = corruption.create(noise, **noise_settings)
    loss_of = corruption.loss_function(loss)
    validation_set = ValidationSet(validation_dir, noise, seed, reference_dir) if cluster.first else None
    shots = isinstance(noise, corruption.Recorded)
    data = dataset.TrainingData(train_tfrecords, crop_size, seed, pairs=shots, turned=turn or shots)
    print(f"Training on {data.describe()} of {train_tfrecords}.")
    devices = tflib.pick_devices(submit_config.num_gpus)
    parts = split_minibatch(minibatch_size, cluster.count, len(devices), microbatches)
    dtype = tflib.pick_dtype(precision)
    paths = ("train_tfrecords", "validation_dir", "reference_dir", "load_network")  # May be others in each worker.
    checks = {"data": data.checksum(), "computed_in": dtype.name, "devices": len(devices)}
    start, state = cluster.agree(start, state, paths, **checks)
    tflib.check_data(state, checks["data"], train_tfrecords)

    with tf.Graph().as_default() as graph, cluster.create_session(dtype) as session:
        tf.set_random_seed(seed)
        with tf.name_scope("data"):
            part = cluster.index, cluster.count
            batches = dataset.minibatches(data, noise, noise2noise, minibatch_size, start, iteration_count, part)
            iterator = tf.data.make_initializable_iterator(batches)
            noisy, target, weight, *clean = iterator.get_next()  # Of noisy shots there is no clean one.
        network = create_autoencoder(dtype)
        rate = tf.placeholder(tf.float32, [], name="learning_rate")
        progress = tf.placeholder(tf.float32, [], name="progress")
        decay = tf.placeholder(tf.float32, [], name="decay")

        def mean_loss(noisy, target, weight):
            output = network.get_output_for(noisy)
            if balance:
                weight *= crop_weights(noisy, output)
            return tf.reduce_mean(weight * loss_of(output - target, progress))

        loss, update, skipped = tflib.Optimizer(rate, **adam, kind=optimizer, weight_decay=weight_decay).minimize(
            mean_loss, [noisy, target, weight], devices, parts, cluster
        )
        result = network
        if moving_average:  # Made after the gradients, which are by all variables that there are.
            result = create_autoencoder(dtype, scope="moving_average")
            with tf.control_dependencies([update]):
                update = result.follow(network, decay)
        checkpoints = tflib.Checkpoints(submit_config.run_dir, checkpoint_minutes, checks["data"])
        share_variables = cluster.share_variables()
        session.run([tf.global_variables_initializer(), iterator.initializer])
        step = {"loss": loss, "skipped": skipped, "update": update}
        batch = dict(zip(("noisy", "target", "clean"), (noisy, target, *clean)))

        if cluster.first and load_network and not submit_config.resuming:
            print(f"Starting from {load_network}.")
            for started in {network, result}:
                load_values(started, load_network)
        ctx = dnnlib.RunContext(submit_config, iteration_count, start, state.get("elapsed", 0.0), stoppable=True)
        with ctx, cluster.running(), data.errors_named():
            reporter = _Reporter(ctx, result, validation_set, graph, max_bad_updates, start, state)
            if submit_config.resuming and cluster.first:
                checkpoints.restore(start)
                print(f"Resumed after iteration {start}.")
            session.run(share_variables)
            if cluster.first and not submit_config.resuming:
                reporter.evaluate(0, session.run(batch))
                session.run(iterator.initializer)  # Training starts with the minibatch that was just shown.
                checkpoints.save(0, reporter.get_state())
            for i in range(start, iteration_count):
                last = i + 1 == iteration_count
                evaluate = cluster.first and (last or (i + 1) % eval_interval == 0)
                lr = learning_rate_at(i, iteration_count, ramp_down_part, learning_rate)
                feed = {rate: lr, progress: i / iteration_count, decay: decay_at(i, moving_average)}
                values, stop = cluster.run_step(step | batch if evaluate else step, feed, ctx.stop_reason)
                reporter.add(i, values["loss"], values["skipped"], lr)
                ctx.step(i + 1)
                if evaluate:
                    reporter.evaluate(i + 1, values)
                if cluster.first and (evaluate or stop or checkpoints.due()):
                    checkpoints.save(i + 1, reporter.get_state())
                if stop and not last:
                    resume = cluster.resume_command
                    raise dnnlib.Stopped(f"stopped by {stop} after iteration {i + 1}; go on with: {resume}")
            if cluster.first:
                tflib.save_snapshot(result, ctx.path("network_final.pickle"))
                reporter.summary.close()
                print(f"Elapsed time: {dnnlib.format_time(ctx.time_since_start())}")


class _Reporter:
    """What a run tells at every evaluation: PSNR, timing, scalars, pictures, the best network so far."""

    def __init__(self, ctx, network, validation_set, graph, max_bad_updates, iteration, state):
        """`state`: of `get_state` after `iteration` iterations; empty at the start."""
        self.ctx, self.network, self.validation_set = ctx, network, validation_set
        self.summary = tflib.Autosummary(ctx.run_dir, graph)
        self.summary.set_state(state.get("summary", {}))
        self._last_iteration = iteration
        self._best_psnr = state.get("best_psnr", 0.0)
        self._skipped = tflib.SkippedUpdates(max_bad_updates, state.get("skipped_in_a_row", 0))

    def get_state(self):
        """What a resumed run has to know, for the checkpoint."""
        self.summary.flush()
        return {
            "elapsed": self.ctx.time_since_start(),
            "summary": self.summary.get_state(),
            "best_psnr": self._best_psnr,
            "skipped_in_a_row": self._skipped.in_a_row,
        }

    def add(self, iteration, loss, skipped, learning_rate):
        """Collects a training step. UserError where too many in a row had to be skipped."""
        self.summary.add(Train__learning_rate=learning_rate, Train__overflow_frequency=skipped)
        if not skipped:
            self.summary.add(Loss=loss)
        self._skipped.count(iteration, skipped, loss, learning_rate)

    def evaluate(self, iteration, batch):
        """Validates after `iteration` iterations. `batch`: a training minibatch, the arrays noisy, target and clean."""
        ctx, started = self.ctx, time.time()
        sec_per_eval = ctx.time_since_last_update() if iteration else 0.0
        sec_per_iter = sec_per_eval / max(iteration - self._last_iteration, 1)
        self._last_iteration = iteration

        psnrs = []
        for index, result in enumerate(self.validation_set.evaluate(self.network)):
            if result.psnr is not None:
                psnrs.append(result.psnr)
            if index < PREVIEWS:
                self._save_preview(iteration, index, result)
        self._save_batch(iteration, batch)
        measured = self._report_psnr(float(np.mean(psnrs))) if psnrs else {}  # Without references there is no PSNR.

        maintenance = time.time() - started
        total = ctx.time_since_start()
        ctx.print(
            f"iter {iteration:<10d} time {dnnlib.format_time(total):<12s} sec/eval {sec_per_eval:<7.1f} "
            f"sec/iter {sec_per_iter:<7.2f} maintenance {maintenance:<6.1f}"
        )
        self.summary.add(Timing__iter=iteration, Timing__total_sec=total)
        self.summary.add(Timing__sec_per_eval=sec_per_eval, Timing__sec_per_iter=sec_per_iter)
        self.summary.add(Timing__maintenance_sec=maintenance)
        self.summary.report(iteration)
        ctx.update(iteration, **measured)

    def _report_psnr(self, psnr):
        """Tells the PSNR in dB; keeps the network if it is the best so far. Returns what `run.txt` is to say of it."""
        self.ctx.print(f"Average PSNR: {psnr:.2f}")
        self.summary.add(PSNR_avg_psnr=psnr)
        if psnr > self._best_psnr:
            self._best_psnr = psnr
            tflib.save_snapshot(self.network, self.ctx.path("network_best.pickle"))
        return {"average_psnr": f"{psnr:.2f}"}

    def _save_preview(self, iteration, index, result):
        shown = "noisy_denoised" if result.clean is None else "noisy_denoised_clean"
        self.summary.add_image(f"Validation/{index}_{shown}", result.side_by_side(), iteration)
        result.save(self.ctx.path, iteration, index, **({"kinds": ["pred"]} if iteration else {}))

    def _save_batch(self, iteration, batch):
        """The training minibatch as the network sees it: its crops in a row; input, output, target, clean if known."""
        crops = [batch["noisy"], self.network.run(batch["noisy"]), batch["target"]]
        crops += [batch["clean"]] if "clean" in batch else []
        rows = [np.concatenate(list(images.to_uint8(x[:4])), axis=2) for x in crops]
        for name, row in zip(("x_aug", "y_pred", "y"), rows):
            self._save(f"img_{iteration}_{name}.png", row)
        shown = "input_output_target_clean" if "clean" in batch else "input_output_target"
        self.summary.add_image(f"Training/{shown}", np.concatenate(rows, axis=1), iteration)

    def _save(self, name, pixels):
        images.save_uint8(self.ctx.path(name), pixels)
