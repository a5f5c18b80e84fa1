"""Validation of MRI networks."""

import os

import numpy as np

import dnnlib
from dnnlib import tflib
from dnnlib.tflib import tf
from imaging import images
from mri import dataset_mri
from mri.model import Model

EXAMPLES = 100  # Number of validation slices in psnr.txt.
PICTURES = 10  # Number of these that are saved as final<index>.png.


def save_examples(ctx, model, data, settings, seed):
    """Write `psnr.txt` and `final<index>.png` for the first validation slices."""
    results = list(model.evaluate(data, settings, seed, EXAMPLES))
    with dnnlib.open_atomic(ctx.path("psnr.txt")) as f:
        for index, result in enumerate(results):
            f.write("{:3d}: {:.5f} {:.5f} {:.5f}\n".format(index, *result.decibels()))
    for index, result in enumerate(results[:PICTURES]):
        images.save_uint8(ctx.path(f"final{index:05d}.png"), result.picture())


def validate(submit_config, network_snapshot, data_dir, valid_set, p_at_edge, post_op, precision, seed):
    """Measure a network on a validation set, write psnr.txt and pictures. Return the mean clamped PSNR in dB."""
    data = dataset_mri.load(os.path.join(data_dir, valid_set))
    settings = dataset_mri.Settings(dataset_mri.Undersampling(p_at_edge))
    with tf.Graph().as_default(), tflib.create_session() as session:
        tflib.pick_devices(submit_config.num_gpus)
        model = Model(post_op, tflib.pick_dtype(precision))
        session.run(tf.global_variables_initializer())
        model.load(network_snapshot)
        with dnnlib.RunContext(submit_config, max_iter=len(data)) as ctx:
            decibels = []
            for result in model.evaluate(data, settings, seed):
                decibels.append((*result.decibels(), result.input_db_clamped()))
                ctx.step(len(decibels))
            save_examples(ctx, model, data, settings, seed)
        corrupted, output, clamped, corrupted_clamped = np.mean(decibels, axis=0)
        print(f"Average PSNR of {len(data)} slices: corrupted={corrupted:.5f}, output={output:.5f}")
        print(f"corrupted_db_clamped={corrupted_clamped:.5f}")
        print(f"test_db_clamped={clamped:.5f}")
        return clamped
