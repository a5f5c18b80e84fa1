"""How images are corrupted: noise models, and the losses that suit them."""

from .noise_models import CORRUPTIONS, LOSSES, Corruption, Recorded, create, generator, loss_function

__all__ = ["CORRUPTIONS", "LOSSES", "Corruption", "Recorded", "create", "generator", "loss_function"]
