"""`fcn-jax doctor`."""

from dataclasses import dataclass
from pathlib import Path

from fcn_jax.cli.words import parse_flags
from fcn_jax.runtime.files import find_cache_folder


@dataclass(frozen=True)
class Doctor:
    """Show versions, devices, memory, extras and the cache: what a report of a problem needs."""

    cache: Path | None = None
    """folder for prepared data; None: fcn_jax in the user's cache directory"""


def run(words: list[str]) -> None:
    """Print what this machine and installation are."""
    flags = parse_flags(Doctor, "doctor", words)
    from fcn_jax.runtime.doctor import describe_system

    for name, value in describe_system(find_cache_folder(flags.cache)):
        print(f"{name:14} {value}", flush=True)
