"""Short texts on what weights contain."""

from collections import Counter
from collections.abc import Iterable

from fcn_jax.weights.weights import Weights


def describe_weights(weights: Weights) -> str:
    """Describe the content of a file of weights in a few lines."""
    size = sum(array.size for array in weights.arrays.values())
    lines = [
        weights.origin,
        f"  {len(weights.arrays)} arrays, {size:,} numbers: {count_by_module(weights.arrays)}",
        f"  input: {weights.input or 'not told by the file, ImageNet RGB is taken'}",
    ]
    if weights.class_names:
        lines.append(f"  classes: {', '.join(weights.class_names)}")
    if weights.unknown:
        lines.append(f"  not used: {', '.join(weights.unknown)}")
    return "\n".join(lines)


def count_by_module(paths: Iterable[str]) -> str:
    """Count arrays by their top module: "backbone 180, score_fr 2"."""
    counts = Counter(path.split("/")[1] if "/" in path else path for path in paths)
    parts = [name if count == 1 else f"{name} {count}" for name, count in counts.items()]
    return ", ".join(parts[:8] + ["..."] * (len(parts) > 8))
