"""Eight CPU devices, strict arrays, and shapes checked: what every test runs under."""

import os

from xla_flags import FAST_COMPILE

# Set before JAX starts.
flags = (os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", FAST_COMPILE)
os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ["JAX_PLATFORMS"] = "cpu"

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("fcn_jax", "beartype.beartype")

import importlib.util  # noqa: E402
import re  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402
from smoke import is_smoke  # noqa: E402
from torchvision_peer import import_torchvision  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)  # before pytest selects by `-m`
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_smoke(item):
            item.add_marker(pytest.mark.smoke)
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.programs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Fail a test that is skipped for want of a peer and is not marked so: no step of CI would run it."""
    report = yield
    missing = report.skipped and re.search(r"could not import '(torch|torchvision|cv2)", str(report.longrepr))
    if missing and item.get_closest_marker("peers") is None:
        report.outcome, report.longrepr = "failed", f"this test needs {missing[1]}: mark it with pytest.mark.peers"
    return report


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
    """torchvision with its segmentation networks."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("could not import 'torchvision': install it by FCN_EXTRAS=peers ./launch.sh test")
    return import_torchvision()


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"the real images are not here: put them at {folder}")
    return folder
