"""Whole training runs against the second implementation in reference.py: every setting has its effect."""

import numpy as np
import pytest
import reference
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import config
import corruption
from dnnlib import EasyDict, tflib
from dnnlib.tflib import tf
from imaging import images, rgb_files
from validation import ValidationSet

# Every setting that affects the numbers differs from its default. The second of three evaluations is the best.
CHANGED = {
    "crop_size": 64,
    "seed": 7,
    "turn": True,
    "noise2noise": False,
    "minibatch_size": 4,
    "microbatches": 2,
    "noise": "poisson-gaussian",
    "loss": "annealed",
    "balance": True,
    "optimizer": "muon",
    "beta1": 0.8,
    "beta2": 0.95,
    "epsilon": 1e-5,
    "weight_decay": 5,
    "learning_rate": 0.03,
    "ramp_down_part": 0.5,
    "moving_average": 0.2,
    "iteration_count": 4,
    "eval_interval": 2,
}
SMALL = {"crop_size": 32, "minibatch_size": 2, "iteration_count": 4, "eval_interval": 2}


def annealed_and_balanced(noisy, output, target, weight, progress):
    removed = tf.reduce_mean(tf.square(tf.stop_gradient(output) - noisy), axis=[1, 2, 3], keepdims=True)
    weight *= 25 / 255 / tf.sqrt(removed + (5 / 255) ** 2)
    return tf.reduce_mean(weight * tf.pow(tf.abs(output - target) + 1e-8, 2 * (1 - progress)))


def squared(noisy, output, target, weight, progress):
    return tf.reduce_mean(tf.square(output - target))


def options_of(settings):
    """Return the settings as options of `config.py train`."""
    names = {name: "--" + name.replace("_", "-") for name in settings} | {"iteration_count": "--iterations"}
    return [f"{names[name]}={value}" for name, value in settings.items()]


def observe_microbatches(monkeypatch):
    """Return a list that collects the number of microbatches of every optimizer set up from now on."""
    seen, minimize = [], tflib.Optimizer.minimize

    def observed(self, tower_loss, inputs, devices, parts, cluster):
        seen.append(parts)
        return minimize(self, tower_loss, inputs, devices, parts, cluster)

    monkeypatch.setattr(tflib.Optimizer, "minimize", observed)
    return seen


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize("changed", [True, False])
def test_settings(tmp_path, monkeypatch, photos, training_file, changed):
    monkeypatch.chdir(tmp_path)
    microbatches = observe_microbatches(monkeypatch)
    given = CHANGED if changed else SMALL
    config.main(["train", f"--train-tfrecords={training_file}", f"--validation-dir={photos}", *options_of(given)])

    settings = EasyDict(config.PROGRAM.defaults("train") | given)
    noise = corruption.create(settings.noise)
    batches = reference.first_batches(training_file, noise, settings)
    validation_set = ValidationSet(str(photos), noise, settings.seed)
    rates = settings.learning_rate * np.array([1, 1, 1, 0.25 if changed else (0.5 + np.cos(np.pi / 6) / 2) ** 2])
    losses, weights, evaluations = reference.run(
        batches,
        annealed_and_balanced if changed else squared,
        seed=settings.seed,
        optimizer=reference.Optimizer(
            *(settings.optimizer, settings.beta1, settings.beta2, settings.epsilon, settings.weight_decay)
        ),
        rates=rates,
        decays=[0.1, 2 / 11, 0.2, 0.2] if changed else [0, 0, 0, 0],
        evaluate=lambda net: (np.mean([x.psnr for x in validation_set.evaluate(net)]), net.run(batches[0][0])),
    )
    psnrs, outputs = zip(*evaluations)
    psnrs = psnrs[::2]
    (run_dir,) = (tmp_path / "results").iterdir()
    assert microbatches == [settings.microbatches]
    assert not changed or psnrs[1] > max(psnrs[0], psnrs[2])

    events = EventAccumulator(str(run_dir))
    events.Reload()
    collected = {"Loss": np.reshape(losses, [2, 2]), "Train/learning_rate": np.reshape(rates, [2, 2])}
    for tag, values in (collected | {"PSNR_avg_psnr": np.reshape(psnrs, [3, 1])}).items():
        mean, high = (events.Scalars(name) for name in (tag, f"xCustomScalars/{tag}/margin_hi"))
        np.testing.assert_allclose([p.value for p in mean], values.mean(axis=1), rtol=1e-3, err_msg=tag)
        np.testing.assert_allclose([p.value for p in high], (values.mean(axis=1) + values.std(axis=1)), rtol=1e-3)
    for name, step in {"network_final.pickle": 4, "network_best.pickle": 2 * int(np.argmax(psnrs))}.items():
        saved = tflib.load_snapshot(str(run_dir / name)).variables
        for variable, value in weights[step].items():  # Within a hundredth of the change that training made.
            error, change = (np.linalg.norm(value - x[variable]) for x in (saved, weights[0]))
            assert error < 0.01 * change, f"{name} {variable}"
    for step, batch in {0: batches[0], 2: batches[1], 4: batches[3]}.items():
        for name, crops in {"x_aug": batch[0], "y": batch[1]}.items():
            shown = rgb_files.read_rgb(str(run_dir / f"img_{step}_{name}.png"))
            np.testing.assert_array_equal(shown, np.concatenate(list(images.to_uint8(crops)), axis=2), err_msg=name)
    shown = rgb_files.read_rgb(str(run_dir / "img_0_y_pred.png")).astype(int)
    np.testing.assert_allclose(shown, np.concatenate(list(images.to_uint8(outputs[0])), axis=2), atol=1)
