"""Adam over any number of devices, passing over updates that are not finite."""

from ..util import UserError
from .tfutil import tf


class Optimizer:
    """Adam (Kingma & Ba 2015) as TensorFlow computes it, with rates that may change from step to step.

    `learning_rate` and `beta1` may be tensors. TensorFlow keeps the power of beta1 as a variable that it multiplies by
    the current beta1, which is what the published runs with a changing beta1 did.
    """

    def __init__(self, learning_rate, beta1, beta2, epsilon):
        self.adam = tf.train.AdamOptimizer(learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon)

    def minimize(self, tower_loss, inputs, devices):
        """Splits the minibatch over the devices and averages their gradients.

        tower_loss: function of a tuple of tensors (a part of each of `inputs`) -> scalar loss, the mean over the part.
        inputs: tensors [N, ...], N divisible by the number of devices.
        Returns (loss, update operation, 1.0 where the update was passed over because a gradient was not finite).
        """
        parts = list(zip(*(tf.split(x, len(devices)) for x in inputs)))
        losses, gradients = [], []
        for device, part in zip(devices, parts):
            with tf.device(device):
                losses.append(tower_loss(*part))
                gradients.append(self.adam.compute_gradients(losses[-1]))
        with tf.name_scope("average"):
            averaged = [_average(same_variable) for same_variable in zip(*gradients)]
        with tf.name_scope("finite"):
            finite = tf.reduce_all([tf.reduce_all(tf.is_finite(gradient)) for gradient, _ in averaged])
        self.adam._create_slots([variable for _, variable in averaged])  # Here, lest their names begin with "cond/".
        update = tf.cond(finite, lambda: tf.group(self.adam.apply_gradients(averaged)), tf.no_op)
        return tf.add_n(losses) / len(losses), update, 1 - tf.cast(finite, tf.float32)


class SkippedUpdates:
    """Ends a run of which too many updates in a row are not finite."""

    def __init__(self, most, in_a_row=0):
        """most: how many in a row are borne; in_a_row: how many there were, in a resumed run."""
        self.most, self.in_a_row = most, in_a_row

    def count(self, iteration, skipped, loss, learning_rate):
        """Takes note of an update. UserError where it is one too many."""
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        if self.in_a_row > self.most:
            raise UserError(
                f"iteration {iteration}: {self.in_a_row} updates in a row were not finite (loss {loss}): training has "
                f"diverged, or the data are broken; try a --learning-rate below {learning_rate:g}"
            )


def _average(gradients_and_variables):
    gradients, variables = zip(*gradients_and_variables)
    return tf.add_n(gradients) / len(gradients), variables[0]
