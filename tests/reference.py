"""A second, plain implementation of training in NumPy: the optimizers and a whole short run."""

import numpy as np

import dataset
import network
from dnnlib import tflib
from dnnlib.tflib import tf


class Optimizer:
    """Adam (Kingma & Ba 2015) or Muon (Jordan et al. 2024) with decoupled weight decay of the kernels."""

    def __init__(self, kind, beta1, beta2, epsilon, weight_decay=0.0):
        self.kind, self.beta1, self.beta2, self.epsilon, self.weight_decay = kind, beta1, beta2, epsilon, weight_decay
        self.steps, self.moments = 0, {}

    def updated(self, values, gradients, rate):
        """Return the values {name: array} after one step of the learning rate `rate`."""
        self.steps += 1
        return {name: self._updated(name, value, gradients[name], rate) for name, value in values.items()}

    def _updated(self, name, value, gradient, rate):
        m, v = self.moments.get(name, (0, 0))
        rows = value.size // value.shape[-1]
        if self.kind == "muon" and value.ndim == 4 and min(rows, value.shape[-1]) >= 32:
            m = 0.95 * m + 0.05 * gradient
            ahead = (0.95 * m + 0.05 * gradient).reshape(rows, -1)
            step = 0.2 * np.sqrt(max(ahead.shape)) * orthogonalized(ahead).reshape(value.shape)
        else:
            m = self.beta1 * m + (1 - self.beta1) * gradient
            v = self.beta2 * v + (1 - self.beta2) * gradient**2
            correction = np.sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)
            step = correction * m / (np.sqrt(v) + self.epsilon)
        self.moments[name] = m, v
        decay = self.weight_decay if value.ndim > 1 else 0
        return value * (1 - rate * decay) - rate * step


def orthogonalized(matrix):
    """Five Newton-Schulz iterations with the coefficients of Jordan et al. 2024."""
    if matrix.shape[0] < matrix.shape[1]:
        return orthogonalized(matrix.T).T
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x.T @ x
        x = 3.4445 * x + x @ (-4.7750 * gram + 2.0315 * gram @ gram)
    return x


def first_batches(path, noise, settings):
    """Return (noisy, target, weight) of every minibatch of a run with these `settings` (those of `config.py train`)."""
    with tf.Graph().as_default(), tflib.create_session() as session:
        data = dataset.TrainingData(path, settings.crop_size, settings.seed, turned=settings.turn)
        count = settings.iteration_count
        batches = dataset.minibatches(data, noise, settings.noise2noise, settings.minibatch_size, 0, count)
        iterator = tf.data.make_initializable_iterator(batches)
        following = iterator.get_next()[:3]
        session.run(iterator.initializer)
        return [session.run(following) for _ in range(count)]


def run(batches, loss, seed, optimizer, rates, decays, evaluate, dtype=tf.float32):
    """Train the RGB network from the initial weights of `seed`.

    Args:
        batches: (noisy, target, weight) of each iteration.
        loss: Function of the tensors (noisy, output, target, weight, progress) that returns a scalar.
        rates: Learning rate of each iteration.
        decays: Decay of the EMA of the weights in each iteration.
        evaluate: Function of the network with the EMA weights.

    Returns:
        (losses, EMA weights, evaluations); the latter two begin before the first iteration.
    """
    with tf.Graph().as_default(), tflib.create_session() as session:
        tf.set_random_seed(seed)
        net = network.create_autoencoder(dtype)
        fed = [tf.placeholder(tf.float32, [None, *x.shape[1:]]) for x in batches[0]]
        progress = tf.placeholder(tf.float32, [])
        error = loss(fed[0], net.get_output_for(fed[0]), *fed[1:], progress)
        gradients = dict(zip(net.vars, tf.gradients(error, list(net.vars.values()))))
        session.run(tf.global_variables_initializer())
        values = average = net.get_values()
        losses, averages, evaluations = [], [average], [evaluate(net)]
        for i, batch in enumerate(batches):
            net.set_values(values, "reference")
            feed = dict(zip(fed, batch)) | {progress: i / len(batches)}
            value, gradient = session.run([error, gradients], feed)
            values = optimizer.updated(values, gradient, rates[i])
            average = {name: decays[i] * a + (1 - decays[i]) * values[name] for name, a in average.items()}
            net.set_values(average, "reference")
            losses.append(value)
            averages.append(average)
            evaluations.append(evaluate(net))
    return losses, averages, evaluations
