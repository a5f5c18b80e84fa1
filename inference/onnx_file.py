"""Networks of network.py as ONNX files, which other programs run.

The U-Net is written anew in the operations of ONNX. Channels and widths are those of the variables.
"""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import dnnlib
from network import LEAKY_SLOPE, MULTIPLE

OPSET = 17  # The oldest that has been tested: an older file runs in more programs.


def write(network, path):
    """Write a network as an ONNX file that maps `image` to `denoised`, in float32.

    Both are [N, C, H, W] of any size; for MRI they are [N, 255, 255]. The metadata name the values of black and white,
    and say what the snapshot says of its data: the type, black and white of the samples that became these values.

    Raises:
        ValueError: The network has layers that this module does not know.
    """
    graph, shape = _Graph(network.get_values()), ["N", *network.input.shape[1:].as_list()]
    if len(shape) == 3:
        _add_mri(graph)
    else:
        shape[2:] = "H", "W"
        _add_image(graph)
    if graph.layers:
        raise ValueError(f"inference/onnx_file.py does not write the layers {', '.join(graph.layers)}")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "denoised")]
    contents = helper.make_graph(graph.nodes, network.name, ends[:1], ends[1:], graph.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    ir_version = helper.find_min_ir_version_for(opsets)
    model = helper.make_model(contents, opset_imports=opsets, ir_version=ir_version, producer_name="noise2noise")
    data = {name: json.dumps(value) for name, value in network.data.items()}
    helper.set_model_props(model, data | {"black": "-0.5", "white": "0.5"})
    onnx.checker.check_model(model, full_check=True)
    with dnnlib.open_atomic(path, "wb") as f:
        f.write(model.SerializeToString())


class _Graph:
    """Nodes and constants of an ONNX graph, added one by one; and the layers whose variables are not yet in it."""

    def __init__(self, variables):
        self.nodes, self.constants, self.layers = [], [], {}
        for name, value in variables.items():
            layer, kind = name.split("/")
            self.layers.setdefault(layer, {})[kind.lower()[0]] = value

    def add(self, operation, *inputs, output=None, **attributes):
        """Add a node; returns the name of its output. Inputs are names, or values of constants."""
        output = output or f"{operation}_{len(self.nodes)}"
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        self.nodes.append(helper.make_node(operation, names, [output], name=output, **attributes))
        return output

    def conv(self, x, layer, activate=True):
        """Add a 3x3 convolution with zero padding, and the activation that follows it."""
        values = self.layers.pop(layer)
        y = self.add("Conv", x, values["w"].transpose(3, 2, 0, 1), values["b"], pads=[1] * 4)
        return self.add("LeakyRelu", y, alpha=LEAKY_SLOPE) if activate else y

    def _constant(self, value):
        value = np.asarray(value)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _add_image(graph):
    """Add a network for images: `network.autoencoder`."""
    padded = _pad_reflect(graph, _pad_reflect(graph, "image", axis=2), axis=3)
    size = graph.add("Slice", graph.add("Shape", "image"), [2], [4])
    graph.add("Slice", _unet(graph, padded), [0, 0], size, [2, 3], output="denoised")


def _add_mri(graph):
    """Add a network for MRI slices: `network.autoencoder_mri`."""
    x = graph.add("Unsqueeze", "image", [1])
    padded = graph.add("Pad", x, [0, 0, 0, 0, 0, 0, 1, 1], np.float32(-0.5))
    y = graph.add("Slice", _unet(graph, padded), [0, 0], [-1, -1], [2, 3])
    graph.add("Squeeze", y, [1], output="denoised")


def _pad_reflect(graph, x, axis):
    """Add the padding of `network._pad_reflect` along an axis."""
    size = graph.add("Gather", graph.add("Shape", "image"), axis)
    multiples = graph.add("Div", graph.add("Add", size, MULTIPLE - 1), MULTIPLE)
    period = graph.add("Max", graph.add("Sub", graph.add("Mul", size, 2), 2), 1)
    position = graph.add("Mod", graph.add("Range", 0, graph.add("Mul", multiples, MULTIPLE), 1), period)
    index = graph.add("Min", position, graph.add("Sub", period, position))
    return graph.add("Gather", x, index, axis=axis)


def _unet(graph, x):
    """Add `network.unet`."""

    def pool(x):
        return graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    def conv_up(x, skip, layer):
        scales = np.array([1, 1, 2, 2], np.float32)
        how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return graph.conv(graph.add("Concat", graph.add("Resize", x, "", scales, **how), skip, axis=1), layer)

    skips = [x]
    x = pool(graph.conv(graph.conv(x, "enc_conv0"), "enc_conv1"))
    for layer in (2, 3, 4, 5):
        skips.append(x)
        x = pool(graph.conv(x, f"enc_conv{layer}"))
    x = graph.conv(x, "enc_conv6")
    for layer in (5, 4, 3, 2):
        x = graph.conv(conv_up(x, skips.pop(), f"dec_conv{layer}"), f"dec_conv{layer}b")
    x = graph.conv(conv_up(x, skips.pop(), "dec_conv1a"), "dec_conv1b")
    return graph.conv(x, "dec_conv1", activate=False)
