"""Training of the RGB network on corrupted images, with or without clean targets."""

import os
import time

import numpy as np

import corruption
import dataset
import dnnlib
import images
from dnnlib import tflib
from dnnlib.tflib import tf
from network import create_autoencoder
from validation import ValidationSet

PREVIEWS = 3  # Validation images saved and shown in TensorBoard at every evaluation.


def learning_rate_at(iteration, iteration_count, ramp_down_part, learning_rate):
    """Constant, then ramped down over the last part of the run: lr (0.5 + cos(pi t) / 2)^2, t from 0 to 1."""
    ramp_start = iteration_count * (1 - ramp_down_part)
    if iteration <= ramp_start:
        return learning_rate
    t = (iteration - ramp_start) / (iteration_count * ramp_down_part)
    return learning_rate * (0.5 + np.cos(np.pi * t) / 2) ** 2


def train(
    submit_config,
    train_tfrecords,
    validation_dir,
    noise,
    noise_settings,
    noise2noise,
    iteration_count,
    eval_interval,
    minibatch_size,
    crop_size,
    learning_rate,
    ramp_down_part,
    adam,
    seed,
):
    """Trains a network and leaves it as `network_final.pickle`. The settings are explained in config.py."""
    noise = corruption.create(noise, **noise_settings)
    validation_set = ValidationSet(validation_dir, noise, seed)
    data = dataset.TrainingData(train_tfrecords, crop_size, seed)
    print(f"Training on {len(data.records)} images of {train_tfrecords}.")
    devices = tflib.pick_devices(submit_config.num_gpus, minibatch_size)

    with tf.Graph().as_default() as graph, tflib.create_session() as session:
        tf.set_random_seed(seed)
        with tf.name_scope("data"):
            batches = dataset.minibatches(data, noise, noise2noise, minibatch_size, 0, iteration_count)
            iterator = tf.data.make_initializable_iterator(batches)
            noisy, target, clean = iterator.get_next()
        network = create_autoencoder()
        rate = tf.placeholder(tf.float32, [], name="learning_rate")
        optimizer = tflib.Optimizer(rate, **adam)
        loss, update, skipped = optimizer.minimize(
            lambda x, y: tf.reduce_mean(tf.square(network.get_output_for(x) - y)), [noisy, target], devices
        )
        session.run([tf.global_variables_initializer(), iterator.initializer])
        step = {"loss": loss, "skipped": skipped, "update": update, "noisy": noisy, "target": target, "clean": clean}

        with dnnlib.RunContext(submit_config, max_iter=iteration_count) as ctx, data.errors_named():
            reporter = _Reporter(ctx, network, validation_set, graph)
            reporter.evaluate(0)
            for i in range(iteration_count):
                lr = learning_rate_at(i, iteration_count, ramp_down_part, learning_rate)
                values = session.run(step, {rate: lr})
                reporter.summary.add(Loss=values["loss"], Train__learning_rate=lr)
                reporter.summary.add(Train__overflow_frequency=values["skipped"])
                ctx.step(i + 1)
                if (i + 1) % eval_interval == 0 or i + 1 == iteration_count:
                    reporter.evaluate(i + 1, values)
                if ctx.should_stop():
                    tflib.save_snapshot(network, ctx.path("network_latest.pickle"))
                    raise dnnlib.UserError(f"stopped by abort.txt after {i + 1} of {iteration_count} iterations")
            tflib.save_snapshot(network, ctx.path("network_final.pickle"))
            os.remove(ctx.path("network_latest.pickle"))
            reporter.summary.close()
            print(f"Elapsed time: {dnnlib.format_time(ctx.time_since_start())}")


class _Reporter:
    """What a run tells at every evaluation: PSNR, timing, scalars, pictures, the network so far."""

    def __init__(self, ctx, network, validation_set, graph):
        self.ctx, self.network, self.validation_set = ctx, network, validation_set
        self.summary = tflib.Autosummary(ctx.run_dir, graph)
        self._last_iteration = 0

    def evaluate(self, iteration, batch=None):
        """Validates after `iteration` iterations. `batch`: the arrays noisy, target of the last training step."""
        ctx, started = self.ctx, time.time()
        sec_per_eval = ctx.time_since_last_update() if iteration else 0.0
        sec_per_iter = sec_per_eval / max(iteration - self._last_iteration, 1)
        self._last_iteration = iteration

        psnrs = []
        for index, result in enumerate(self.validation_set.evaluate(self.network)):
            psnrs.append(result.psnr)
            if index < PREVIEWS:
                self._save_preview(iteration, index, result)
        if batch:
            self._save_batch(iteration, batch)
        if not psnrs:
            raise dnnlib.UserError("no image of the validation set can be read")
        tflib.save_snapshot(self.network, ctx.path("network_latest.pickle"))

        psnr, maintenance = np.mean(psnrs), time.time() - started
        total = ctx.time_since_start()
        ctx.print(f"Average PSNR: {psnr:.2f}")
        ctx.print(
            f"iter {iteration:<10d} time {dnnlib.format_time(total):<12s} sec/eval {sec_per_eval:<7.1f} "
            f"sec/iter {sec_per_iter:<7.2f} maintenance {maintenance:<6.1f}"
        )
        self.summary.add(PSNR_avg_psnr=psnr, Timing__iter=iteration, Timing__total_sec=total)
        self.summary.add(Timing__sec_per_eval=sec_per_eval, Timing__sec_per_iter=sec_per_iter)
        self.summary.add(Timing__maintenance_sec=maintenance)
        self.summary.report(iteration)
        ctx.update(iteration, average_psnr=f"{psnr:.2f}")

    def _save_preview(self, iteration, index, result):
        self.summary.add_image(f"Validation/{index}_noisy_denoised_clean", result.side_by_side(), iteration)
        self._save(f"img_{iteration}_val_{index}_pred.png", result.denoised)
        if iteration == 0:
            self._save(f"img_{iteration}_val_{index}_orig.png", result.clean)
            self._save(f"img_{iteration}_val_{index}_noisy.png", result.noisy)

    def _save_batch(self, iteration, batch):
        """The training minibatch as the network sees it: its crops in a row, input, output, target, clean below."""
        noisy, target, clean = (images.to_uint8(batch[name]) for name in ("noisy", "target", "clean"))
        output = images.to_uint8(self.network.run(batch["noisy"]))
        rows = [np.concatenate(list(crops[:4]), axis=2) for crops in (noisy, output, target, clean)]
        for name, row in zip(("x_aug", "y_pred", "y"), rows):
            self._save(f"img_{iteration}_{name}.png", row)
        self.summary.add_image("Training/input_output_target_clean", np.concatenate(rows, axis=1), iteration)

    def _save(self, name, pixels):
        images.save_uint8(self.ctx.path(name), pixels)
