"""Give hostile files to a reader, within bounds of time and memory, and count how it ends."""

import contextlib
import hashlib
import random
import re
import resource
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from faults.mutations import damage

from fcn_jax.errors import InputError

SECONDS = 20  # of the processor, for one input; ten times as many by the clock, for a machine busy with other things
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")  # of an object of Python
BYTES = 3 << 30  # of memory beyond what the process has mapped before; a file here has less than a megabyte


class Surface(NamedTuple):
    """A kind of files that strangers send, and what reads them.

    Attributes:
        name: what the files are.
        seeds: sound files, as bytes. Every one of them gives an answer.
        read: reads the file at a path, which is in a folder of its own. All that it writes is in this folder.
        damage: makes a hostile file of a seed.
        file: name of the file.
        share: how many of the inputs of a test this surface gets, relative to the others: few for a slow reader.
    """

    name: str
    seeds: Sequence[bytes]
    read: Callable[[Path], object]
    damage: Callable[[bytes, random.Random, Sequence[bytes]], bytes] = damage
    file: str = "file"
    share: float = 1.0


class TimeIsUpError(BaseException):
    """The time for an input is over. It is no Exception, so that readers do not explain it away."""


def attack(surface: Surface, count: int, folder: Path, seed: int = 0) -> Counter[str]:
    """Read the seeds of a surface, and then `count` hostile files.

    Returns:
        How many ended in an answer and in each kind of clear error.

    Raises:
        AssertionError: a reader raised another error, took too long or too much memory, or wrote outside its folder.
            The text says where the input is kept.
    """
    ends: Counter[str] = Counter()
    for data in surface.seeds:
        assert try_file(surface, data, folder) == "answer", f"a seed of {surface.name} is refused"
    for number in range(count):
        rng = random.Random(f"{surface.name} {seed} {number}")
        data = surface.damage(rng.choice(surface.seeds), rng, surface.seeds)
        ends[try_file(surface, data, folder)] += 1
    return ends


def try_file(surface: Surface, data: bytes, folder: Path) -> str:
    """Read one file, and return how it ended: "answer" or the name of the error.

    Raises:
        AssertionError: see `attack`.
    """
    inside = folder / "inside"
    inside.mkdir(parents=True, exist_ok=True)
    file = inside / surface.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    end, text = None, ""
    try:
        with warnings.catch_warnings(action="ignore"), limit_time(), limit_memory():
            surface.read(file)
        end = "answer"
    except InputError as error:
        end = type(error).__name__
        text = str(error)
    except (Exception, TimeIsUpError) as error:
        kept = keep(data, folder)
        trace = "".join(traceback.format_exception(error)[-12:])
        raise AssertionError(f"{surface.name}: {kept} ended in {type(error).__name__}\n{trace}") from error
    assert not ADDRESS.search(text), f"{surface.name}: {keep(data, folder)} is told with an address: {text}"
    outside = [path.name for path in folder.iterdir() if path != inside]
    assert not outside, f"{surface.name}: {keep(data, folder)} made {outside} outside of its folder"
    return end


def keep(data: bytes, folder: Path) -> Path:
    """Keep an input for a replay with `surface.read(file)`."""
    kept = folder.parent / f"hostile-{hashlib.sha256(data).hexdigest()[:8]}"
    kept.write_bytes(data)
    return kept


@contextlib.contextmanager
def limit_time(seconds: float | None = None) -> Iterator[None]:
    """Raise TimeIsUpError in the block if it takes more seconds of the processor, or ten times as many by the clock.

    Args:
        seconds: the limit; None: `SECONDS`.
    """

    def stop(*_: object) -> None:
        raise TimeIsUpError("it took too long")

    limit = SECONDS if seconds is None else seconds
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, limit), (signal.SIGALRM, signal.ITIMER_REAL, 10 * limit))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, time in timers:
        signal.setitimer(timer, time)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextlib.contextmanager
def limit_memory(more: int = BYTES) -> Iterator[None]:
    """Let allocations beyond a number of further bytes fail in the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def spread(surfaces: Sequence[Surface], count: int) -> Iterator[tuple[Surface, int]]:
    """Divide a number of inputs among surfaces by their shares."""
    total = sum(surface.share for surface in surfaces)
    return zip(surfaces, (round(count * s.share / total) for s in surfaces), strict=True)


def describe(ends: Counter[str]) -> str:
    """Describe how inputs ended: "700 inputs: 600 InputError, 100 answer"."""
    return f"{ends.total()} inputs: " + ", ".join(f"{count} {end}" for end, count in ends.most_common())
