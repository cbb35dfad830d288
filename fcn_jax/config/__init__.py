"""The configuration of a training: its numbers (`Config`) and its conduct (`RunOptions`).

They are frozen dataclasses that check themselves. A field that is None is left open: `fcn_jax.data.defaults` fills it
with the default of the data set or of the network, so one preset works with all of them. The flags `--model.*` are in
network.py, `--data.*` and `--augment.*` in images.py, and all others in training.py. The presets are in
`fcn_jax.presets`, the defaults of a data set in its file in data/sources/. This package imports neither JAX nor a data
set, so the command line answers at once.
"""

from fcn_jax.config.images import AugmentConfig, DataConfig, DataOptions
from fcn_jax.config.network import CAFFE_INPUT, HEADS, TILE, InputConfig, ModelConfig
from fcn_jax.config.training import Config, OptimConfig, RunOptions

__all__ = [
    "CAFFE_INPUT",
    "HEADS",
    "TILE",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "DataOptions",
    "InputConfig",
    "ModelConfig",
    "OptimConfig",
    "RunOptions",
]
