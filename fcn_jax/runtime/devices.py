"""Check that JAX finds the devices that it is asked for."""

import importlib.metadata

import jax

from fcn_jax.errors import InputError

BUILDS = {"jax-cuda12-plugin": "cuda12", "jax-cuda13-plugin": "cuda13", "libtpu": "tpu"}  # by package


def require_devices() -> None:
    """Start JAX's backends: those of `JAX_PLATFORMS`, and the host's processor, which draws the changes of images.

    Raises:
        InputError: JAX cannot use the platform of `JAX_PLATFORMS`, or, without that variable, fails to start.
    """
    asked = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if wants_cpu_beside := bool(asked) and "cpu" not in asked.split(","):
        jax.config.update("jax_platforms", f"{asked},cpu")
    try:
        jax.devices()
        if wants_cpu_beside and jax.default_backend() == "cpu":  # JAX skips some devices that are not there
            raise RuntimeError
    # JAX asserts that some platform is left when the one that is asked for has been skipped without an error.
    except (RuntimeError, AssertionError) as error:
        wish = f"JAX_PLATFORMS is {asked!r}, but JAX cannot use it here" if asked else "JAX cannot start"
        reason = str(error).partition("(set JAX_PLATFORMS")[0].strip() or "no such device is found"
        builds = ", ".join(["cpu", *filter(None, map(_find_build, BUILDS))])
        raise InputError(
            f"{wish}: {reason.rstrip('.')}. Installed are the packages for {builds}. Set JAX_PLATFORMS=cpu, or leave "
            "it out to use what there is; for a GPU or a TPU install the packages of its kind (FCN_ACCELERATOR of "
            "launch.sh) and a driver that is new enough for them"
        ) from error


def _find_build(package: str) -> str | None:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    return BUILDS[package]
