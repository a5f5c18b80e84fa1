"""The Muon optimizer, which needs a fraction of the iterations of Adam."""

from .tfutil import tf

MOMENTUM = 0.95  # Jordan et al. 2024.
STEPS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)  # Newton-Schulz iteration of Jordan et al. 2024.
RMS = 0.2  # RMS of an update at learning rate 1; about that of Adam, so both take the same rates (Liu et al. 2025).
LEAST = 32  # Minimum number of rows and columns of a matrix; first and last kernels of a network have fewer.


class Muon(tf.train.AdamOptimizer):
    """Muon for the kernels of wide convolutions, Adam for all other variables.

    A kernel [h, w, in, out] is a matrix [h w in, out]. Its update is the Nesterov momentum of its gradient with all
    singular values set to about 1: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, name="Muon", **kwargs)  # Snapshots may hold variables of Adam under its name.

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
    """Set the singular values of a matrix to about 1 by the iteration X <- a X + X (b X'X + c (X'X)^2).

    Values above 1/500 of the norm end between 0.7 and 1.2. The zero matrix stays zero.
    """
    if matrix.shape[0] < matrix.shape[1]:
        return tf.transpose(orthogonalized(tf.transpose(matrix)))
    a, b, c = COEFFICIENTS
    x = matrix / (tf.norm(matrix) + 1e-20)
    for _ in range(STEPS):
        gram = tf.matmul(x, x, transpose_a=True)
        x = a * x + tf.matmul(x, b * gram + c * tf.matmul(gram, gram))
    return x
