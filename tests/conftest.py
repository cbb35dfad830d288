"""Eight CPU devices, strict arrays, and shapes checked: what every test runs under."""

import os

# Before JAX starts. Most of the suite's time is compilation, and LLVM's optimisation is half of that: left out here,
# and in place in the whole processes of test_cli.py.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ["JAX_PLATFORMS"] = "cpu"

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("fcn_jax", "beartype.beartype")

import importlib.util  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def voc_dir() -> Path:
    """A part of PASCAL VOC 2012 in its official layout."""
    return _existing(SHARED_DATA / "VOCdevkit")


@pytest.fixture(scope="session")
def camvid_dir() -> Path:
    """CamVid, images/ and labels/ by split."""
    return _existing(SHARED_DATA / "camvid")


@pytest.fixture(scope="session")
def torchvision():
    """The package, importable beside PyTorch's CPU build as well.

    Its compiled operators are linked with CUDA and do not load there, and then its import fails for want of their
    names. No test needs them, so their names are declared.
    """
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not here: pip install -c constraints.txt -e '.[peers]'")
    with warnings.catch_warnings(action="ignore"):
        try:
            return _import_torchvision()
        except RuntimeError:
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            operators = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            module = _import_torchvision()
            module.declared_operators = operators  # they are there as long as this object
            return module


def _import_torchvision() -> ModuleType:
    import torchvision.models.segmentation

    return torchvision


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"the real images are not here: put them at {folder}")
    return folder
