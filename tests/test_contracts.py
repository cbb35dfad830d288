"""What may import what: the wings of the package, the layers alone, and the tests without PyTorch."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from smoke import SMOKE

PROJECT = Path(__file__).parents[1]


def test_imports_keep_the_contracts():
    """The contracts stand in pyproject.toml, under tool.importlinter."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if process.returncode:
        pytest.fail(process.stdout + process.stderr, pytrace=False)


def test_layers_import_jax_flax_and_numpy_alone():
    graph = grimp.build_graph("fcn_jax", include_external_packages=True, cache_dir=None)
    modules = {"fcn_jax.layers"} | graph.find_descendants("fcn_jax.layers")
    imported = {other.split(".")[0] for module in modules for other in graph.find_modules_directly_imported_by(module)}
    assert imported - sys.stdlib_module_names - {"fcn_jax"} == {"jax", "flax", "numpy"}


def test_light_modules_load_neither_jax_nor_a_data_library():
    """An `import` inside what they import counts too, unlike in the contracts."""
    light = "import fcn_jax.config, fcn_jax.presets, fcn_jax.data.sources, sys; print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=True)
    heavy = {"jax", "flax", "grain", "optax", "orbax", "scipy", "tensorflow_datasets", "tensorboardX", "h5py"}
    assert heavy & set(process.stdout.split()) == set()


def test_test_files_import_at_their_top_what_the_extra_test_installs():
    """Without PyTorch a test is skipped where it asks for it; an import at a file's top would be an error."""
    allowed, providers = installed_by("test"), metadata.packages_distributions()
    folders = [PROJECT / folder for folder in ("tests", "benchmarks", "experiments")]
    own = {name for folder in folders for file in folder.rglob("*.py") for name in (file.stem, file.parent.name)}
    refused = [
        f"{file.relative_to(PROJECT)} imports {name}"
        for file in sorted((PROJECT / "tests").rglob("*.py"))
        for name in imported_at_the_top(ast.parse(file.read_text()))
        if name not in own | {"fcn_jax"} | sys.stdlib_module_names
        and not allowed & {canonicalize_name(provider) for provider in providers.get(name, [])}
    ]
    assert refused == [], "use pytest.importorskip inside the tests, and mark them peers"


def imported_at_the_top(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the packages whose import is needed to import a file."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                pass
            case ast.Import():
                yield from (alias.name.split(".")[0] for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0]
            case ast.Call(func=ast.Attribute(attr="importorskip"), args=[ast.Constant(value=str(module)), *_]):
                yield module.split(".")[0]
            case _:
                yield from imported_at_the_top(node)


def installed_by(extra: str) -> set[str]:
    """Return the names of the distributions that this project with this extra installs, by its requirements' own."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    waiting = [*map(Requirement, project["dependencies"] + extras[extra])]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        name, wanted = canonicalize_name(requirement.name), requirement.extras
        if name == canonicalize_name(project["name"]):
            waiting += [Requirement(line) for own in wanted for line in extras[own]]
        elif (name, *sorted(wanted)) not in seen:
            seen.add((name, *sorted(wanted)))
            for needed in map(Requirement, requirements_of(name)):
                if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in {"", *wanted}):
                    waiting.append(needed)
    return {name for name, *_ in seen}


def requirements_of(distribution: str) -> list[str]:
    try:
        return metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:  # not installed, so what it needs isn't known
        return []


def test_what_the_extra_test_installs_is_found_by_its_requirements_own():
    found = installed_by("test")
    assert {"pytest", "jax", "scipy", "matplotlib", "contourpy", "import-linter", "click"} <= found
    assert not {"torch", "torchvision", "opencv-python"} & found
    assert "torch" in installed_by("peers")


@pytest.mark.parametrize("entry", SMOKE)
def test_the_smoke_selection_names_tests_that_exist(entry):
    file, _, name = entry.partition("::")
    tests = [node.name for node in ast.parse((PROJECT / "tests" / file).read_text()).body if hasattr(node, "name")]
    assert not name or name in tests


def test_imports_at_the_top_are_told_from_those_inside_functions():
    source = """
import numpy.linalg, torch
try:
    from scipy import ndimage
except ImportError:
    pass
cv2 = pytest.importorskip("cv2")
class A:
    import h5py
    def f(self):
        import matplotlib
def g():
    torchvision = pytest.importorskip("torchvision")
"""
    assert list(imported_at_the_top(ast.parse(source))) == ["numpy", "torch", "scipy", "cv2", "h5py"]
