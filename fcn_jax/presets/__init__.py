"""The presets: recipes by name, each with its description, source and scores.

A preset sets the values that define its recipe. Values that it leaves open (None) are the data set's defaults.
"""

from fcn_jax.presets.others import OTHERS
from fcn_jax.presets.own import CAMVID, GENERAL
from fcn_jax.presets.preset import Preset
from fcn_jax.presets.reference import convert_to_mean
from fcn_jax.presets.reference_scenes import SCENES
from fcn_jax.presets.reference_voc import VOC

PRESETS = {**GENERAL, **VOC, **SCENES, **OTHERS, **CAMVID}

__all__ = ["PRESETS", "Preset", "convert_to_mean"]
