"""Platforms that JAX is asked for and cannot use, in processes of their own."""

import os
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("platform", ["nonsense", "rocm"])
def test_what_is_missing_is_named(platform):
    message = ask(platform)
    assert message.startswith(f"JAX_PLATFORMS is '{platform}', but JAX cannot use it here: ")
    assert "Installed are the packages for cpu" in message
    assert "Set JAX_PLATFORMS=cpu" in message


def test_what_is_there_is_used():
    assert ask("cpu") == ask("") == ""
