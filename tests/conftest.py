"""Eight CPU devices, strict arrays, and shapes checked: what every test runs under."""

import os

# Before JAX starts. Most of the suite's time is compilation, and LLVM's optimisation is half of that: left out here,
# and in place in the whole processes of test_cli.py.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ["JAX_PLATFORMS"] = "cpu"

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("fcn_jax", "beartype.beartype")

from pathlib import Path  # noqa: E402

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


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"the real images are not here: put them at {folder}")
    return folder
