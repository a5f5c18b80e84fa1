"""Training of the MRI network on randomly undersampled k-space, with or without clean targets."""

import os
import time

import numpy as np

import dnnlib
from dnnlib import tflib
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


def train(submit_config, **settings):
    """Train a network and leave it as `network-final.pkl`. config_mri.py explains the settings."""
    s = dnnlib.EasyDict(settings)
    run = tflib.Training(submit_config, s, "python config_mri.py --resume")

    # Load data.
    print("Loading training set.")
    train_path = os.path.join(s.data_dir, s.train_set)
    train_data = dataset_mri.load(train_path)
    valid_data = dataset_mri.load(os.path.join(s.data_dir, s.valid_set)) if run.chief else None
    undersampling = dataset_mri.Undersampling(s.p_at_edge)
    corruption = dataset_mri.Settings(undersampling, s.corrupt_targets, s.augment_translation)
    print(f"Bernoulli probability at edge = {undersampling.p_at_edge:.5f}")
    print(f"Average Bernoulli probability = {undersampling.probability.mean():.5f}")
    run.agree(train_data.checksum(), train_path, paths=("data_dir", "train_set", "valid_set", "load_network"))
    steps = dataset_mri.minibatches_per_epoch(len(train_data), s.minibatch_size)
    iteration_count = s.num_epochs * steps

    with run.graph() as graph:
        with tf.name_scope("data"):
            elements = run.next_minibatch(
                dataset_mri.minibatches(
                    train_data, corruption, s.seed, s.minibatch_size, run.start, iteration_count, run.shard
                )
            )

        # Construct network and loss.
        model = Model(s.post_op, run.dtype)

        # Optimizer.
        rate = tf.placeholder(tf.float32, [], name="learning_rate")
        beta1 = tf.placeholder_with_default(s.beta1, [], name="beta1")  # Adam's power of beta1 starts with the default.
        optimizer = tflib.Optimizer(rate, beta1, s.beta2, s.epsilon, s.optimizer, s.weight_decay)
        step = run.minimize(optimizer, model.losses[s.loss], elements)

        # Train.
        with run.begin(iteration_count, load=lambda: s.load_network and model.load(s.load_network)):
            reporter = _Reporter(run, model, valid_data, corruption, graph)
            if run.fresh:
                reporter.save_training_example(train_data)
                run.save(0, reporter.get_state())
            for i in run.iterations(reporter.get_state):
                epoch, last = i // steps, (i + 1) % steps == 0
                lr, b1 = schedule(
                    *(epoch, s.num_epochs, s.learning_rate, s.beta1, s.beta1_rampdown),
                    *(s.rampup_epochs, s.rampdown_epochs),
                )
                loss, _, skipped = run.step(step, {rate: lr, beta1: b1})
                reporter.add(i, loss, skipped, lr)
                if run.chief and last:
                    reporter.end_epoch(epoch, s.num_epochs, lr)
                    if epoch % s.snapshot_interval == 0:
                        model.save(run.ctx.path(f"network-snapshot-{epoch:05d}.pkl"))
                    run.want_checkpoint()
            if run.chief:
                print("Saving final network weights.")
                model.save(run.ctx.path("network-final.pkl"))
                print("Resetting random seed and saving a bunch of example images.")
                save_examples(run.ctx, model, valid_data, corruption, s.seed)
                reporter.summary.close()


class _Reporter(tflib.Reporter):
    """What a run tells after every epoch: decibels, scalars, pictures."""

    def __init__(self, run, model, valid_data, corruption, graph):
        super().__init__(run, graph, rate_tag="Learning_rate")
        self.model, self.valid_data, self.corruption, self.seed = model, valid_data, corruption, run.settings.seed
        self._epoch_started = time.time() - run.state.get("epoch_seconds", 0.0)

    def get_state(self):
        """What a resumed run has to know, for the checkpoint."""
        return super().get_state() | {"epoch_seconds": time.time() - self._epoch_started}

    def save_training_example(self, train_data):
        """Save a picture of the first training slice and what the network makes of it."""
        element = dataset_mri.training_element(train_data, self.corruption, self.seed, 0, 0)
        images.save_uint8(self.ctx.path("example_train.png"), self.model.run([element])[0].picture())

    def end_epoch(self, epoch, num_epochs, learning_rate):
        """Validate and report an epoch."""
        seconds, clamped = time.time() - self._epoch_started, []
        for result in self.model.evaluate(self.valid_data, self.corruption, self.seed):
            if not clamped:
                picture = result.picture()
            clamped.append(result.decibels()[-1])
        test_db, loss = np.mean(clamped), self.summary.mean("Loss")
        self.ctx.print(
            f"Epoch {epoch:3d}/{num_epochs}: time={seconds:7.3f}, train_loss={loss:.7f}, "
            f"test_db_clamped={test_db:.5f}, lr={learning_rate:f}"
        )
        images.save_uint8(self.ctx.path(f"img{epoch:05d}.png"), picture)
        self.summary.add_image("Validation/corrupted_output_restored_target", images.to_pillow(picture), epoch)
        self.summary.add(test_db_clamped=test_db, Timing__sec_per_eval=seconds)
        self.summary.report(epoch)
        self._epoch_started = time.time()
        self.ctx.update(epoch + 1, test_db_clamped=f"{test_db:.5f}")
