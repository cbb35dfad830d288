"""torchvision, also beside a CPU build of PyTorch."""

import sys
import warnings
from types import ModuleType


def import_torchvision() -> ModuleType:
    """Import torchvision with its segmentation networks.

    Its compiled operators are linked with CUDA and do not load beside a CPU build of PyTorch. Its import then fails,
    because it registers shapes for operators that are not declared. No network here needs them, so they are declared.
    """
    import torch

    with warnings.catch_warnings(action="ignore"):
        try:
            return _import()
        except RuntimeError:
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            operators = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            module = _import()
            module.declared_operators = operators  # they are there as long as this object
            return module


def _import() -> ModuleType:
    import torchvision.models.segmentation

    return torchvision
