"""What a second start of a command does before its first result: it traces, compiles and imports little."""

import json
import os
import subprocess
import sys

import pytest
from command_line import read_metrics
from xla_flags import FAST_COMPILE

# The command line with a network that compiles in a second. Its last line tells what has happened in the process.
COMMAND = """
import json, sys
from collections import Counter
import jax
from fcn_jax import cli
from fcn_jax.inference import trained
from fcn_jax.models.backbones.resnet import ResNet
from fcn_jax.models.fcn import FCN8s

if sys.argv[1] == "train":
    from fcn_jax.training import setup as trained
backbone = ResNet(depths=(1, 1, 1, 1), width=8)
trained.build = lambda model, classes: FCN8s(num_classes=classes, backbone=backbone)
events = Counter()
jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **more: events.update([event]))
cli.main(sys.argv[1:])
told = {event.split("/")[-1]: count for event, count in events.items()}
print(json.dumps({"events": told, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


@pytest.fixture(scope="module")
def start(place, tmp_path_factory):
    """A function that starts a command in a process with one device and an own cache, and tells what it did."""
    cache = tmp_path_factory.mktemp("cache")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST_COMPILE, "XDG_CACHE_HOME": str(cache)}

    def run(*words: str) -> dict:
        command = [sys.executable, "-c", COMMAND, *words]
        done = subprocess.run(command, cwd=place.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.slow
def test_a_second_start_traces_and_imports_little(place, start):
    train = ("--steps", "1", "--log-every", "1", "--optim.warmup-steps", "0")
    cold, warm = (start(*place.train_words(f"start{index}", *train)) for index in range(2))
    assert read_metrics(place.root / "start1") == read_metrics(place.root / "start0")  # the same bits
    assert count_traces(warm) < count_traces(cold)
    assert count_traces(warm) <= 20

    image = str(place.root / "data" / "images" / "tiny" / "tiny0.png")
    cold, warm = (start("predict", "start0", image, "--out", f"start-out{index}") for index in range(2))
    first, second = (place.root / f"start-out{index}" / "tiny0.png" for index in range(2))
    assert first.read_bytes() == second.read_bytes()
    assert count_traces(warm) <= 2  # the options that XLA knows, and the call of the program that is kept
    assert not {"grain", "tensorflow_datasets", "h5py", "optax"} & {*warm["modules"]}
    assert "fcn_jax" in warm["modules"]


def count_traces(told: dict) -> int:
    return told["events"]["jaxpr_trace_duration"]
