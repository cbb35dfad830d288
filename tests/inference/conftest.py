"""A run directory whose network has random variables, and a browser."""

import shutil

import pytest
from random_network import SMALL, write_run
from small_runs import folder_data

from fcn_jax.config import DataConfig, DataOptions

BROWSER_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND,EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run with random variables after step 1, twice as large ones after step 2, and the better score at step 1."""
    folder = tmp_path_factory.mktemp("run")
    where = DataOptions(dir=folder_data(folder / "data"), cache=folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fcn_jax.models.build.BACKBONES", SMALL)
        write_run(folder / "run", DataConfig("folder"), where)
        yield folder / "run"


@pytest.fixture(scope="module")
def browser():
    """A real browser, which looks for nothing outside by itself."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pages are tested by playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("Chromium is not here: install it, so that `chromium` is on the PATH")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
        yield browser
        browser.close()
