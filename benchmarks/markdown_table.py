"""Lines of Markdown tables."""


def number(value: float, digits: int = 3) -> str:
    """Format with this many significant digits and without an exponent."""
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def times(ratio: float) -> str:
    """Format a ratio with two decimals, fewer from 10 on."""
    return f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def row(*cells: object) -> str:
    """Make a row; a float is shortened to three digits, None is an empty cell."""
    shown = ("" if cell is None else number(cell) if isinstance(cell, float) else str(cell) for cell in cells)
    return f"| {' | '.join(shown)} |"


def head(*columns: str) -> str:
    """Make the heading of a table, and the line below it."""
    return f"{row(*columns)}\n|{' --- |' * len(columns)}"
