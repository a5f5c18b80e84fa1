"""The networks in PyTorch, to compare speeds with: benchmarks/run.py --peer and benchmarks/gpu.py. Without TensorFlow.

The layout is channels last. Every function returns a function that computes once and returns its result.
"""

import functools
import time

import torch
from torch import nn
from torch.nn import functional


class UNet(nn.Module):
    """`network.unet`, for [N, channels, H, W]."""

    def __init__(self, channels):
        super().__init__()
        sizes = {"enc_conv0": (channels, 48)} | {f"enc_conv{layer}": (48, 48) for layer in range(1, 7)}
        for layer in (5, 4, 3, 2):
            sizes |= {f"dec_conv{layer}": (96 if layer == 5 else 144, 96), f"dec_conv{layer}b": (96, 96)}
        sizes |= {"dec_conv1a": (96 + channels, 64), "dec_conv1b": (64, 32), "dec_conv1": (32, channels)}
        self.layers = nn.ModuleDict({name: nn.Conv2d(*size, 3, padding=1) for name, size in sizes.items()})

    def set_values(self, values):
        """Set the variables of a snapshot: {name: array}."""
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.weight.copy_(torch.from_numpy(values[f"{name}/weight"]).permute(3, 2, 0, 1))
                layer.bias.copy_(torch.from_numpy(values[f"{name}/bias"]))

    def forward(self, x):
        skips = [x]
        x = functional.max_pool2d(self._conv(self._conv(x, "enc_conv0"), "enc_conv1"), 2)
        for layer in (2, 3, 4, 5):
            skips.append(x)
            x = functional.max_pool2d(self._conv(x, f"enc_conv{layer}"), 2)
        x = self._conv(x, "enc_conv6")
        for names in (
            *([f"dec_conv{layer}", f"dec_conv{layer}b"] for layer in (5, 4, 3, 2)),
            ["dec_conv1a", "dec_conv1b"],
        ):
            x = torch.cat([functional.interpolate(x, scale_factor=2), skips.pop()], dim=1)
            for name in names:
                x = self._conv(x, name)
        with torch.autocast(x.device.type, enabled=False):
            return self.layers["dec_conv1"](x.float())

    def _conv(self, x, name):
        return functional.leaky_relu(self.layers[name](x), 0.1)


def rgb_step(forward, net, x, y, optimizer=None):
    """Return the loss and, without an optimizer, its gradients; with one, update the weights."""
    return _descend(functional.mse_loss(forward(x), y), net, optimizer)


def mri_step(forward, net, x, y, optimizer=None):
    """The same for slices [N, 1, 255, 255], with the post-operation at three fifths of the frequencies."""
    output = forward(functional.pad(x, (0, 1, 0, 1), value=-0.5))[..., :-1, :-1]
    mask = y > -0.1
    restored = torch.fft.ifft2(torch.where(mask, y.to(torch.complex64), torch.fft.fft2(output))).real
    return _descend(functional.mse_loss(restored, y), net, optimizer)


def inference(forward, net, x):
    """Return the network's output."""
    with torch.inference_mode():
        return forward(x)


def _descend(loss, net, optimizer):
    if optimizer is None:
        return loss, torch.autograd.grad(loss, list(net.parameters()))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def fastest(compute, bfloat16, arrays, values=None, learning_rate=None):
    """Return the faster of `compute` (a function above) as it is and compiled.

    Args:
        bfloat16: Whether the network computes in bfloat16, by autocast.
        arrays: Arguments of `compute` after the network, as NumPy arrays.
        values: Variables of a snapshot, or None.
        learning_rate: Learning rate of Adam, or None: no updates.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = UNet(arrays[0].shape[1])
    if values:
        net.set_values(values)
    net.to(device, memory_format=torch.channels_last)
    tensors = [torch.from_numpy(a).to(device, memory_format=torch.channels_last) for a in arrays]
    options = {} if learning_rate is None else {"optimizer": torch.optim.Adam(net.parameters(), learning_rate)}

    def run(module):
        def forward(x):
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                return module(x)

        result = compute(forward, net, *tensors, **options)
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    def seconds(candidate):
        candidate()  # Compiles.
        start = time.perf_counter()
        candidate()
        return time.perf_counter() - start

    return min((functools.partial(run, module) for module in (net, torch.compile(net))), key=seconds)
