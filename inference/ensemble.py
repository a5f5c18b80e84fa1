"""Self-ensemble: the mean over the turns and mirrors of an image."""

import itertools

import numpy as np

from network import MULTIPLE


class Ensemble:
    """A network whose output is the mean over the 8 turns and mirrors of its input; takes the place of a network.

    Each turned input gives an output, which is turned back. Training on turned images teaches a network that they have
    equal rights, but not to treat them alike, so that the errors differ and partly cancel (Timofte et al. 2016).

    The input is padded before it is turned. Its poolings then have the same borders in every turn, and tiles give the
    result of the whole image, as without the ensemble.
    """

    def __init__(self, network):
        self.network, self.input, self.data = network, network.input, network.data

    def run(self, x):
        """Apply the network to float32 [N, C, H, W] in 8 ways; returns the mean."""
        height, width = x.shape[2:]
        padding = [(0, -n % MULTIPLE) for n in (height, width)]
        padded = np.pad(x, [(0, 0), (0, 0), *padding], mode="reflect")  # As the network pads.
        total = np.zeros_like(padded)
        for turns, step in itertools.product(range(4), (1, -1)):
            y = self.network.run(np.rot90(padded[..., ::step], turns, (2, 3)))
            total += np.rot90(y, -turns, (2, 3))[..., ::step]
        return total[..., :height, :width] / 8
