"""A run directory whose network has random variables, and a browser."""

import functools
import shutil

import jax
import pytest
from random_network import draw_network_variables
from small_runs import folder_data

from fcn_jax.config import AugmentConfig, Config, DataConfig, DataOptions, ModelConfig, RunOptions
from fcn_jax.data.dataset import prepare
from fcn_jax.data.defaults import fill_config, fill_options
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.build import build
from fcn_jax.runs.checkpoint import Checkpoints
from fcn_jax.runs.run_dir import open_for_training

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
    dataset = prepare("folder", folder_data(folder / "data"), folder / "cache")
    small = {**BACKBONES, "resnet18": functools.partial(ResNet, depths=(1, 1, 1, 1), width=8)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fcn_jax.models.build.BACKBONES", small)
        model = ModelConfig(backbone="resnet18")
        config = fill_config(Config(model=model, data=DataConfig(name="folder"), augment=AugmentConfig(crop=32)))
        options = fill_options(RunOptions(data=DataOptions(dir=folder / "data")), config)
        variables = draw_network_variables(build(model, 3))
        with (
            open_for_training(folder / "run", config, options, dataset) as run,
            Checkpoints(run.checkpoints) as checkpoints,
        ):
            checkpoints.save(1, {"variables": variables})
            checkpoints.note_score(1, 0.5)
            checkpoints.save(2, {"variables": jax.tree.map(lambda x: 2 * x, variables)})
            checkpoints.note_score(2, 0.25)
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
