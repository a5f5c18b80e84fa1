"""Muon: steps of the same length in all directions of a kernel, for training in a fraction of Adam's iterations."""

from .tfutil import tf

MOMENTUM = 0.95  # Jordan et al. 2024.
STEPS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)  # Of the iteration, by the same: singular values get near 1, fast.
RMS = 0.2  # Of an update at rate 1, about that of Adam's, so that rates for one suit the other (Liu et al. 2025).
LEAST = 32  # Rows and columns of a matrix that Muon is for; the network's first and last kernels have fewer.


class Muon(tf.train.AdamOptimizer):
    """Muon for the kernels of wide convolutions, Adam for all other variables.

    A kernel [h, w, in, out] is a matrix [h w in, out]. Its update is the momentum (Nesterov's) of its gradient with all
    singular values made alike: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, name="Muon", **kwargs)  # Adam's variables are others: a snapshot may hold them.

    def _resource_apply_dense(self, grad, var):
        columns = var.shape[-1]
        rows = var.shape.num_elements() // columns
        if len(var.shape) < 4 or min(rows, columns) < LEAST:
            return super()._resource_apply_dense(grad, var)
        momentum = self.get_slot(var, "m")
        momentum = momentum.assign(MOMENTUM * momentum + (1 - MOMENTUM) * grad)
        ahead = MOMENTUM * momentum + (1 - MOMENTUM) * grad
        update = orthogonalized(tf.reshape(ahead, [rows, columns])) * (RMS * max(rows, columns) ** 0.5)
        return var.assign_sub(self._lr_t * tf.reshape(update, var.shape)).op


def orthogonalized(matrix):
    """A matrix [m, n] with singular values s -> the same with values about 1, in 0.7..1.2 where s > 1/500 of the norm.

    By a Newton-Schulz iteration, X <- a X + X (b X'X + c (X'X)^2). Zero stays zero.
    """
    if matrix.shape[0] < matrix.shape[1]:
        return tf.transpose(orthogonalized(tf.transpose(matrix)))
    a, b, c = COEFFICIENTS
    x = matrix / (tf.norm(matrix) + 1e-20)
    for _ in range(STEPS):
        gram = tf.matmul(x, x, transpose_a=True)
        x = a * x + tf.matmul(x, b * gram + c * tf.matmul(gram, gram))
    return x
