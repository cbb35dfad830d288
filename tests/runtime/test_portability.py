"""Modules that only some systems have are not needed to import the package."""

import subprocess
import sys

import pytest

# Imports everything once, so that other packages have what they use here, and then again without those modules.
IMPORT_ALL = """
import importlib, pkgutil, sys
import fcn_jax

def import_all():
    package = importlib.import_module("fcn_jax")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "fcn_jax.")]
    for name in names:
        if name != "fcn_jax.__main__":
            importlib.import_module(name)
    return names

names = import_all()
for name in [name for name in sys.modules if name.partition(".")[0] == "fcn_jax"]:
    del sys.modules[name]
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"):
    sys.modules[name] = None  # an import of it raises ImportError
assert import_all() == names
print(*names)
"""


@pytest.mark.slow
def test_every_module_is_imported_without_modules_of_posix():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"fcn_jax.runtime.files", "fcn_jax.runs.run_dir", "fcn_jax.cli.train"} <= set(done.stdout.split())
