"""Training of the network of images on corrupted images, with or without clean targets."""

import time

import numpy as np

import corruption
import dataset
import dnnlib
from dnnlib import tflib
from dnnlib.tflib import tf
from imaging import images, scale
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
    """Decay of the EMA of the weights: smaller at first, so that it soon forgets the initial weights.

    The rule of TensorFlow's ExponentialMovingAverage: the smaller of the setting and (1 + i) / (10 + i).
    """
    return min(moving_average, (1 + iteration) / (10 + iteration))


def crop_weights(noisy, output):
    """Weights of crops in the loss, about 1 / RMS of the noise that the network finds; 1 where that is 25/255.

    Without them the few crops with the strongest noise dominate the mean loss. They depend on the input only, since no
    gradient passes, so that the output that minimises the mean loss for an input stays the same.

    Args:
        noisy, output: Tensors [N, C, H, W].

    Returns:
        Tensor [N, 1, 1, 1].
    """
    found = tf.reduce_mean(tf.square(tf.stop_gradient(output) - noisy), axis=[1, 2, 3], keepdims=True)
    return 25 / 255 * tf.math.rsqrt(found + (5 / 255) ** 2)


def train(submit_config, **settings):
    """Train a network and leave it as `network_final.pickle`. config.py explains the settings."""
    s = dnnlib.EasyDict(settings)
    run = tflib.Training(submit_config, s, "python config.py train --resume")

    # Load data.
    noise = corruption.create(s.noise, **s.noise_settings)
    shots = isinstance(noise, corruption.RecordedNoise)
    data = dataset.TrainingData(s.train_tfrecords, s.crop_size, s.seed, shots, s.turn or shots, s.channels)
    measured = (s.validation_dir, noise, s.seed, s.reference_dir, s.channels, data.scale)
    validation_set = ValidationSet(*measured) if run.chief else None
    print(f"Training on {data.describe()} of {s.train_tfrecords}.")
    paths = ("train_tfrecords", "validation_dir", "reference_dir", "load_network")
    run.agree(data.checksum(), s.train_tfrecords, paths)

    with run.graph() as graph:
        with tf.name_scope("data"):
            batches = dataset.minibatches(
                data, noise, s.noise2noise, s.minibatch_size, run.start, s.iteration_count, run.shard
            )
            noisy, target, weight, *clean = run.next_minibatch(batches)  # Noisy shots have no clean image.

        # Construct network.
        network = create_autoencoder(run.dtype, channels=s.channels)

        # Loss.
        loss_of = corruption.loss_function(s.loss)
        progress = tf.placeholder(tf.float32, [], name="progress")

        def mean_loss(noisy, target, weight):
            output = network.get_output_for(noisy)
            if s.balance:
                weight *= crop_weights(noisy, output)
            return tf.reduce_mean(weight * loss_of(output - target, progress))

        # Optimizer and EMA.
        rate = tf.placeholder(tf.float32, [], name="learning_rate")
        decay = tf.placeholder(tf.float32, [], name="decay")
        optimizer = tflib.Optimizer(rate, s.beta1, s.beta2, s.epsilon, s.optimizer, s.weight_decay)
        loss, update, skipped = run.minimize(optimizer, mean_loss, [noisy, target, weight])
        result = network
        if s.moving_average:  # Create the EMA after the gradients, which cover every trainable variable that exists.
            result = create_autoencoder(run.dtype, scope="moving_average", channels=s.channels)
            with tf.control_dependencies([update]):
                update = result.follow(network, decay)

        result.data = scale.to_data(data.scale)

        # Train.
        step = {"loss": loss, "skipped": skipped, "update": update}
        batch = dict(zip(("noisy", "target", "clean"), (noisy, target, *clean)))
        with run.begin(s.iteration_count, load=lambda: _load(s.load_network, {network, result})), data.errors_named():
            reporter = _Reporter(run, result, validation_set, graph)
            if run.fresh:
                reporter.evaluate(0, run.peek(batch))
                run.save(0, reporter.get_state())
            for i in run.iterations(reporter.get_state):
                evaluate = run.chief and (i + 1 == s.iteration_count or (i + 1) % s.eval_interval == 0)
                lr = learning_rate_at(i, s.iteration_count, s.ramp_down_part, s.learning_rate)
                feed = {rate: lr, progress: i / s.iteration_count, decay: decay_at(i, s.moving_average)}
                values = run.step(step | batch if evaluate else step, feed)
                reporter.add(i, values["loss"], values["skipped"], lr)
                if evaluate:
                    reporter.evaluate(i + 1, values)
                    run.want_checkpoint()
            if run.chief:
                tflib.save_snapshot(result, run.ctx.path("network_final.pickle"))
                reporter.summary.close()


def _load(snapshot, networks):
    if snapshot:
        print(f"Starting from {snapshot}.")
        for network in networks:
            load_values(network, snapshot)


class _Reporter(tflib.Reporter):
    """What a run tells at every evaluation: PSNR, timing, scalars, pictures, the best network so far."""

    def __init__(self, run, network, validation_set, graph):
        super().__init__(run, graph, rate_tag="Train/learning_rate")
        self.network, self.validation_set = network, validation_set
        self._last_iteration = run.start
        self._best_psnr = run.state.get("best_psnr", 0.0)

    def get_state(self):
        """What a resumed run has to know, for the checkpoint."""
        return super().get_state() | {"best_psnr": self._best_psnr}

    def evaluate(self, iteration, batch):
        """Validate after `iteration` iterations. batch: a training minibatch, the arrays noisy, target and clean."""
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
        if iteration:  # Nothing was trained before the first evaluation.
            self.summary.add(Timing__sec_per_eval=sec_per_eval, Timing__sec_per_iter=sec_per_iter)
        self.summary.add(Timing__maintenance_sec=maintenance)
        self.summary.report(iteration)
        ctx.update(iteration, **measured)

    def _report_psnr(self, psnr):
        """Report the PSNR in dB; keep the network if it is the best so far. Returns the entry for `run.txt`."""
        self.ctx.print(f"Average PSNR: {psnr:.2f}")
        self.summary.add(PSNR_avg_psnr=psnr)
        if psnr > self._best_psnr:
            self._best_psnr = psnr
            tflib.save_snapshot(self.network, self.ctx.path("network_best.pickle"))
        return {"average_psnr": f"{psnr:.2f}"}

    def _save_preview(self, iteration, index, result):
        shown = "noisy_denoised" if result.clean is None else "noisy_denoised_clean"
        self.summary.add_image(f"Validation/{index}_{shown}", images.to_pillow(result.side_by_side()), iteration)
        result.save(self.ctx.path, iteration, index, **({"kinds": ["pred"]} if iteration else {}))

    def _save_batch(self, iteration, batch):
        """The training minibatch as the network sees it: its crops in a row; input, output, target, clean if known."""
        crops = [batch["noisy"], self.network.run(batch["noisy"]), batch["target"]]
        crops += [batch["clean"]] if "clean" in batch else []
        rows = [np.concatenate(list(images.to_uint8(x[:4])), axis=2) for x in crops]
        for name, row in zip(("x_aug", "y_pred", "y"), rows):
            images.save_uint8(self.ctx.path(f"img_{iteration}_{name}.png"), row)
        shown = "input_output_target_clean" if "clean" in batch else "input_output_target"
        self.summary.add_image(f"Training/{shown}", images.to_pillow(np.concatenate(rows, axis=1)), iteration)
