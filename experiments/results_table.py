"""Write the table of published networks: `python experiments/results_table.py PAGE.md FOLDER...`.

Each folder has the `metrics.json` that `fcn-jax publish` writes. The table replaces what the file has between the lines
`<!-- table: published -->` and `<!-- end -->`, so a figure stands in one place.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from fcn_jax.runtime.files import write_atomically

PLACE = re.compile(r"(<!-- table: published -->\n).*?(<!-- end -->)", re.DOTALL)
COLUMNS = ("data", "network", "mean IU, %", "pixel accuracy, %", "steps", "seed", "minutes", "machine", "command")


def write_table(page: Path, folders: list[Path]) -> None:
    """Write the table of the networks in these folders into a page."""
    text = page.read_text()
    if len(PLACE.findall(text)) != 1:
        sys.exit(f"{page} must have the lines <!-- table: published --> and <!-- end --> once; add them")
    table = format_table([json.loads((folder / "metrics.json").read_text()) for folder in folders])
    write_atomically(page, PLACE.sub(lambda found: found[1] + table + found[2], text))


def format_table(published: list[dict[str, Any]]) -> str:
    """Format a line for each network, by data set; the best mean IU first."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for one in sorted(published, key=lambda one: (one["data"], -(one["mean_iu"] or 0))):
        minutes = "" if one["seconds"] is None else f"{one['seconds'] / 60:.0f}"
        scores = ("" if one[name] is None else f"{100 * one[name]:.1f}" for name in ("mean_iu", "pixel_accuracy"))
        start = f"from {one['weights']}" if one["weights"] else "from scratch"
        commands = "; ".join(f"`{command}`" for command in one["commands"])
        facts = (one["step"], one["seed"], minutes, one["machine"] or "", commands)
        lines.append([one["data"], f"{one['network']}, {start}", *scores, *map(str, facts)])
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    write_table(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
