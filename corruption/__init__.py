"""How images are corrupted: noise models, and the losses that suit them."""

from .losses import LOSSES, loss_function
from .noise_model import generator
from .noise_models import NOISE_MODELS, RecordedNoise, all_settings, chosen_settings, create
