"""Platforms that JAX is asked for and cannot use, in processes of their own."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fcn_jax.runtime import devices

CODE = """
from fcn_jax.errors import InputError
from fcn_jax.runtime.devices import require_devices
try:
    require_devices()
except InputError as error:
    print(error)
"""


def ask(platforms: str) -> str:
    environment = os.environ | {"JAX_PLATFORMS": platforms}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("platform", ["nonsense", "rocm", "cuda"])
def test_what_is_missing_is_named(platform):
    message = ask(platform)
    assert message.startswith(f"JAX_PLATFORMS is '{platform}', but JAX cannot use it here: ")
    assert "Installed are the packages for cpu" in message
    assert "Set JAX_PLATFORMS=cpu" in message


def test_the_processor_is_started_beside_an_accelerator(monkeypatch):
    """JAX starts only the platforms that are asked for, and the changes of images are drawn on the processor."""
    updates = {}
    monkeypatch.setattr(devices.jax, "config", SimpleNamespace(jax_platforms="tpu", update=updates.__setitem__))
    monkeypatch.setattr(devices.jax, "devices", list)
    monkeypatch.setattr(devices.jax, "default_backend", lambda: "tpu")
    devices.require_devices()
    assert updates == {"jax_platforms": "tpu,cpu"}


def test_what_is_there_is_used():
    assert ask("cpu") == ask("") == ""
