"""TensorFlow plumbing: sessions and devices, networks and their snapshots, the optimizer, TensorBoard summaries.

`from dnnlib.tflib import tf` imports TensorFlow in graph mode, without its log messages.
"""

from .tfutil import create_session, pick_devices, pick_dtype, tf  # isort: skip - sets TensorFlow up first.
from .autosummary import Autosummary
from .checkpoint import Checkpoints, check_data
from .cluster import Cluster, checksum
from .network import Network
from .optimizer import Optimizer, SkippedUpdates
from .shards import shard_numbers
from .snapshot import check_export, export, load_snapshot, save_arrays, save_snapshot
from .training import Reporter, Training
