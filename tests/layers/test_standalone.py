"""The folder of the layers, copied into another project and used there without this package."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import fcn_jax.layers

FOLDER = Path(fcn_jax.layers.__file__).parent

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
for package in ("fcn_jax", "jaxtyping"):
    sys.modules[package] = None  # an import of it fails

import jax, jax.numpy as jnp, numpy as np
import my_layers
from my_layers import *

x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 4)), jnp.float32)
kernel = jnp.ones((3, 3, 4, 4))
functions = {
    "BatchNorm": lambda x: apply(BatchNorm(use_running_average=False), x),
    "Conv": lambda x: apply(Conv(5, (3, 3), padding=1), x),
    "ConvTranspose": lambda x: apply(ConvTranspose(4, (4, 4), 2, 1, kernel_init=bilinear_init), x),
    "broadcast_channels": lambda x: broadcast_channels(x[0, 0, 0], x.shape),
    "channel_sums": channel_sums,
    "conv": lambda x: conv(x, kernel, padding=1),
    "conv_transpose": lambda x: conv_transpose(x, kernel, 2),
    "convolutionalize": lambda x: convolutionalize(x.reshape(36, 8), 3),
    "depth_to_space": lambda x: depth_to_space(x, 2),
    "max_pool": lambda x: max_pool(x, 2),
    "shift_and_stitch": lambda x: shift_and_stitch(lambda v: max_pool(v, 2), x, 2),
    "upsample_bilinear": lambda x: upsample_bilinear(x, 2),
}

def apply(layer, x):
    return layer.apply(layer.init(jax.random.key(0), x), x, mutable=["batch_stats"])[0]

for name, function in functions.items():
    value, gradient = jax.jit(jax.value_and_grad(lambda x: (function(x) ** 2).sum()))(x)
    assert np.isfinite(value) and np.isfinite(gradient).all() and np.abs(gradient).max() > 0, name

without_gradient = {"bilinear_init", "bilinear_kernel", "compiler_options", "jit_options", "plain_methods"}
without_gradient |= {"conv_transpose_padding", "conv_transpose_size"}
assert {*functions, *without_gradient} == set(my_layers.__all__)
assert bilinear_kernel(4).shape == (4, 4)
assert conv_transpose_size(4, 4, 2, *conv_transpose_padding(4, 2)) == 8
assert jax.jit(lambda x: 2 * x, **jit_options())(1.5) == 3
assert not [name for name, module in sys.modules.items() if module is not None and name.split(".")[0] == "fcn_jax"]
"""


def test_copied_folder_works_without_the_package(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "my_layers", ignore=shutil.ignore_patterns("__pycache__"))
    process = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr


def test_third_party_imports_are_jax_flax_and_numpy():
    imported = set()
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Import():
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                case ast.ImportFrom(level=0, module=str(module)):
                    imported.add(module.split(".")[0])
    assert imported - sys.stdlib_module_names == {"jax", "flax", "numpy"}
