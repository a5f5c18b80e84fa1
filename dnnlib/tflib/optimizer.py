"""Adam or Muon over any number of devices and workers; updates that are not finite are skipped."""

import itertools

from ..util import Stopped
from .muon import Muon
from .tfutil import tf

KINDS = {"adam": tf.train.AdamOptimizer, "muon": Muon}
MOST_SKIPPED = 100  # Number of skipped updates in a row that a run tolerates.
BUFFER_SIZE = 1 << 20  # Approximate bytes of gradients averaged at a time, while the next ones are computed.


class Optimizer:
    """Adam (Kingma & Ba 2015) as TensorFlow computes it, or Muon.

    `learning_rate` and `beta1` may be tensors that change from step to step. TensorFlow multiplies its power of beta1
    by the current beta1 in every step, as the published runs with a changing beta1 did.
    """

    def __init__(self, learning_rate, beta1, beta2, epsilon, kind="adam", weight_decay=0.0):
        """Create the optimizer.

        Args:
            learning_rate: Number or scalar tensor.
            beta1, beta2, epsilon: Settings of Adam, which Muon uses for narrow kernels and biases.
            kind: A name from KINDS.
            weight_decay: Decoupled weight decay (Loshchilov & Hutter 2019): every step first multiplies each kernel by
                1 - weight_decay * learning_rate. Biases are not decayed.
        """
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.adam = KINDS[kind](learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon)

    def minimize(self, tower_loss, inputs, devices, parts=1, cluster=None):
        """Split the minibatch over the devices and average their gradients, and those of all workers.

        Args:
            tower_loss: Function of a tuple of tensors (a part of each of `inputs`) that returns the mean loss.
            inputs: This worker's shard of the minibatch: tensors [N, ...], N divisible by devices times parts.
            devices: Names of the devices.
            parts: Gradient accumulation: number of microbatches per device, computed one after the other in the memory
                of one. Two microbatches, two devices or two workers of as many threads give bitwise equal results.
            cluster: The workers, all of which run the step at once. None: this process only.

        Returns:
            (loss, update operation, 1.0 if the update was skipped because a gradient was not finite, otherwise 0.0).
            The values are bitwise equal in all workers.
        """
        with tf.name_scope("optimizer/"):
            towers = []
            for device, share in zip(devices, _split(inputs, len(devices))):
                with tf.device(device):
                    loss, gradients, variables = self._accumulate(tower_loss, _split(share, parts))
                    towers.append([loss, *gradients[::-1]])  # In the order in which backpropagation computes them.
            with tf.name_scope("average"):
                loss, *averages = _average(towers, devices, cluster)
            gradients = averages[::-1]
            with tf.name_scope("finite"):
                finite = tf.reduce_all([tf.reduce_all(tf.is_finite(gradient)) for gradient in gradients])
            with tf.name_scope(None):  # Snapshots have the slots by their published names, without a scope or "cond/".
                self.adam._create_slots(variables)
            averaged = list(zip(gradients, variables))
            update = tf.cond(finite, lambda: self._apply(averaged), tf.no_op)
            return loss, update, 1 - tf.cast(finite, tf.float32)

    def _apply(self, gradients_and_variables):
        """Return the update operation: weight decay of the kernels, then the step of the optimizer."""
        kernels = [variable for _, variable in gradients_and_variables if len(variable.shape) > 1]
        shrink = self.weight_decay * self.learning_rate
        decayed = [kernel.assign_sub(shrink * kernel) for kernel in kernels] if self.weight_decay else []
        with tf.control_dependencies(decayed):
            return tf.group(self.adam.apply_gradients(gradients_and_variables))

    def _accumulate(self, tower_loss, parts):
        """Return (loss, gradients, variables), averaged over the parts, which are computed one after the other."""
        total = []
        for part in parts:
            with tf.control_dependencies(total), tf.name_scope("loss/"):
                loss = tower_loss(*map(tf.identity, part))
            gradients, variables = zip(*self.adam.compute_gradients(loss))
            values = [loss, *gradients]
            total = [a + b for a, b in zip(total, values)] if total else values
        if len(parts) > 1:
            total = [x / len(parts) for x in total]
        return total[0], total[1:], variables


class SkippedUpdates:
    """Stops a run in which too many updates in a row were skipped."""

    def __init__(self, in_a_row):
        """`in_a_row`: number of skipped updates in a row so far."""
        self.in_a_row = in_a_row

    def count(self, iteration, skipped, loss, learning_rate):
        """Count an update; raise Stopped if it is one skipped update too many."""
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        if self.in_a_row > MOST_SKIPPED:
            raise Stopped(
                f"iteration {iteration}: {self.in_a_row} updates in a row were not finite (loss {loss}): training has "
                f"diverged, or the data are broken; try a --learning-rate below {learning_rate:g}"
            )


def _split(inputs, count):
    """Split each tensor into `count` equal parts; return `count` tuples, each with one part of every tensor."""
    return list(zip(*(tf.split(x, count) for x in inputs)))


def _average(towers, devices, cluster):
    """Average the towers of all devices and workers; the means are on the first device.

    The tensors are packed into buffers. TensorFlow's collective operations average these one after the other, in the
    order in which backpropagation computes them: in a ring (Patarasu & Yuan 2009) on CPUs, with NCCL on GPUs.

    Args:
        towers: For each device, a list of tensors.
    """
    size = len(devices) * (cluster.count if cluster else 1)
    if size == 1:
        return towers[0]
    next_key = cluster.instance_key if cluster else itertools.count(1).__next__
    averaged, operations = [], []
    for group in _groups(towers[0]):
        key, packed = next_key(), []
        for device, tower in zip(devices, towers):
            with tf.device(device), tf.control_dependencies(operations[-len(devices) :]):
                buffer = tf.concat([tf.reshape(tower[index], [-1]) for index in group], axis=0)
                packed.append(
                    tf.raw_ops.CollectiveReduce(
                        input=buffer,
                        group_size=size,
                        group_key=1,
                        instance_key=key,
                        merge_op="Add",
                        final_op="Div",
                        subdiv_offsets=[0],
                        communication_hint="nccl" if "gpu" in device else "ring",
                    )
                )
        operations += packed
        averaged += _unpack(packed[0], [towers[0][index].shape for index in group])
    with tf.control_dependencies(operations):  # Every worker runs every operation, because the others wait for it.
        return [tf.identity(tensor) for tensor in averaged]


def _groups(tensors):
    """Group the indices of the tensors into buffers of about BUFFER_SIZE bytes of float32."""
    groups, total = [], 0
    for index, tensor in enumerate(tensors):
        if total * 4 >= BUFFER_SIZE * len(groups):
            groups.append([])
        groups[-1].append(index)
        total += tensor.shape.num_elements()
    return groups


def _unpack(buffer, shapes):
    parts = tf.split(buffer, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]
