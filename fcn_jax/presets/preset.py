"""What a preset has."""

from dataclasses import dataclass, field

from fcn_jax.config import Config, RunOptions


@dataclass(frozen=True)
class Preset:
    """A recipe with its description, source and scores.

    Attributes:
        description: what it trains.
        config: the values that decide its numbers.
        options: the conduct of its runs, if the recipe sets it.
        source: where the recipe comes from.
        published: mean IU that the source published, in %, with the data it was measured on.
        measured: mean IU that this code reached, in %, with the data and the time.
    """

    description: str
    config: Config
    options: RunOptions = field(default_factory=RunOptions)
    source: str = ""
    published: str = ""
    measured: str = ""

    def __str__(self) -> str:
        """Format the preset as one line for the command line's help."""
        facts = [(name, getattr(self, name)) for name in ("source", "published", "measured")]
        return "; ".join([self.description, *(f"{name}: {text}" for name, text in facts if text)])
