"""Adam or Muon over any number of devices of any number of workers, passing over updates that are not finite."""

from ..util import Stopped
from .muon import Muon
from .tfutil import tf

KINDS = {"adam": tf.train.AdamOptimizer, "muon": Muon}
BUFFER_SIZE = 1 << 20  # Bytes of gradients, about, that are averaged at a time, while the next ones are computed.


class Optimizer:
    """Adam (Kingma & Ba 2015) as TensorFlow computes it, or Muon, with rates that may change from step to step.

    `learning_rate` and `beta1` may be tensors. TensorFlow keeps the power of beta1 as a variable that it multiplies by
    the current beta1, which is what the published runs with a changing beta1 did.
    """

    def __init__(self, learning_rate, beta1, beta2, epsilon, kind="adam", weight_decay=0.0):
        """Args:
        kind: A name from KINDS.
        beta1, beta2, epsilon: Settings of Adam, which Muon uses for narrow kernels and biases.
        weight_decay: Decoupled weight decay (Loshchilov & Hutter 2019): every step first multiplies each kernel by
            1 - weight_decay * learning_rate. Biases are not decayed.
        """
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.adam = KINDS[kind](learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon)

    def minimize(self, tower_loss, inputs, devices, parts=1, cluster=None):
        """Splits the minibatch over the devices and averages their gradients, with those of the other workers.

        tower_loss: function of a tuple of tensors (a part of each of `inputs`) -> scalar loss, the mean over the part.
        inputs: tensors [N, ...], N divisible by devices times parts; this worker's share of the minibatch.
        parts: of the share of a device, computed one after the other, in the memory of one. Two parts give what two
            devices or workers of as many threads do, to the bit.
        cluster: the workers, all of which run the step at once; None: this one only. They agree in it on stopping.
        Returns (loss, update operation, 1.0 where the update was passed over because a gradient was not finite), for
        all workers the same, to the bit.
        """
        stop = [cluster.stop_asked()] if cluster and cluster.count > 1 else []
        towers = []
        for device, share in zip(devices, _split(inputs, len(devices))):
            with tf.device(device):
                loss, gradients, variables = self._accumulate(tower_loss, _split(share, parts))
                towers.append([loss, *stop, *gradients[::-1]])  # In the order of their making.
        with tf.name_scope("average"):
            loss, *averages = _average(towers, devices, cluster)
        if stop:
            cluster.stop_agreed = averages.pop(0)
        gradients = averages[::-1]
        with tf.name_scope("finite"):
            finite = tf.reduce_all([tf.reduce_all(tf.is_finite(gradient)) for gradient in gradients])
        self.adam._create_slots(variables)  # Here, lest their names begin with "cond/".
        averaged = list(zip(gradients, variables))
        update = tf.cond(finite, lambda: self._apply(averaged), tf.no_op)
        return loss, update, 1 - tf.cast(finite, tf.float32)

    def _apply(self, gradients_and_variables):
        """The update operation: weight decay of the kernels, then the optimizer's step."""
        kernels = [variable for _, variable in gradients_and_variables if len(variable.shape) > 1]
        shrink = self.weight_decay * self.learning_rate
        decayed = [kernel.assign_sub(shrink * kernel) for kernel in kernels] if self.weight_decay else []
        with tf.control_dependencies(decayed):
            return tf.group(self.adam.apply_gradients(gradients_and_variables))

    def _accumulate(self, tower_loss, parts):
        """(loss, gradients, variables): the means over the parts, each computed after the one before."""
        total = []
        for part in parts:
            with tf.control_dependencies(total):
                loss = tower_loss(*map(tf.identity, part))
            gradients, variables = zip(*self.adam.compute_gradients(loss))
            values = [loss, *gradients]
            total = [a + b for a, b in zip(total, values)] if total else values
        if len(parts) > 1:
            total = [x / len(parts) for x in total]
        return total[0], total[1:], variables


class SkippedUpdates:
    """Ends a run of which too many updates in a row are not finite."""

    def __init__(self, most, in_a_row=0):
        """most: how many in a row are borne; in_a_row: how many there were, in a resumed run."""
        self.most, self.in_a_row = most, in_a_row

    def count(self, iteration, skipped, loss, learning_rate):
        """Takes note of an update. UserError where it is one too many."""
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        if self.in_a_row > self.most:
            raise Stopped(
                f"iteration {iteration}: {self.in_a_row} updates in a row were not finite (loss {loss}): training has "
                f"diverged, or the data are broken; try a --learning-rate below {learning_rate:g}"
            )


def _split(inputs, count):
    """`count` tuples of equal parts of each of the tensors."""
    return list(zip(*(tf.split(x, count) for x in inputs)))


def _average(towers, devices, cluster):
    """The means over all towers, a list of tensors for each device, of all workers; on the first device.

    Tensors are packed into buffers, which the collective operations of TensorFlow average one after the other, in the
    order in which backpropagation makes them: as a ring (Patarasu & Yuan 2009) on CPUs, by NCCL on GPUs.
    """
    size = len(devices) * (cluster.count if cluster else 1)
    if size == 1:
        return towers[0]
    keys = iter(cluster.instance_key, None) if cluster else iter(range(1, 1 << 30))
    averaged, operations = [], []
    for group in _groups(towers[0]):
        key, packed = next(keys), []
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
    with tf.control_dependencies(operations):  # Nobody may leave out one that the others wait for.
        return [tf.identity(tensor) for tensor in averaged]


def _groups(tensors):
    """Splits the indices of the tensors into runs of about BUFFER_SIZE bytes of float32."""
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
