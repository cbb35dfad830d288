"""Check that all processes of a training train the same."""

import dataclasses
import hashlib
import json
import socket
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fcn_jax.errors import InputError
from fcn_jax.runtime.json_values import flatten, to_json
from fcn_jax.runtime.processes import gather
from fcn_jax.runtime.versions import hash_code, read_versions
from fcn_jax.training.setup import Setup


def require_agreement(setup: Setup) -> None:
    """Check that configuration, data, weights and code are the same in all processes.

    Raises:
        InputError: they are not; the text names the processes, their hosts, and what differs.
    """
    if jax.process_count() == 1:
        return
    everyone = [json.loads(text) for text in gather(json.dumps(_describe(setup)))]
    first = everyone[0]
    lines = [
        f"process {number} on {facts['host']}: {name} is {facts[name]!r}, and {value!r} in process 0 on {first['host']}"
        for number, facts in enumerate(everyone)
        for name, value in first.items()
        if name != "host" and facts.get(name) != value
    ]
    if lines:
        raise InputError("\n  ".join(["the processes of the training differ; give them the same:", *lines[:10]]))


def _describe(setup: Setup) -> dict[str, Any]:
    """Describe everything that has to be the same, by name."""
    options = dataclasses.replace(setup.options, data=dataclasses.replace(setup.options.data, dir=None, cache=None))
    return {
        "host": socket.gethostname(),
        "the code": hash_code()[:16],
        **{f"the version of {name}": found for name, found in read_versions().items()},
        **flatten(to_json(setup.config)),
        **flatten(to_json(options)),
        "the data (names and sizes of the images)": setup.dataset.contents,
        "the step to resume from": setup.resume_step,
        "the weights to start from": None if setup.start is None else _hash_arrays(setup.start.weights.arrays),
    }


def _hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for path in sorted(arrays):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(arrays[path]).data)
    return digest.hexdigest()[:16]
