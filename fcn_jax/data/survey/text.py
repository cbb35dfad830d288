"""What the command line prints of a survey."""

from fcn_jax.data.survey.borders import REACH
from fcn_jax.data.survey.repeats import Repeats
from fcn_jax.data.survey.survey import LabelSurvey, Survey

LISTED = 5  # pairs of images that a line names; the JSON file has all


def describe_split(survey: Survey, split: str) -> list[str]:
    """Describe the sizes of a split, and its labels in each task."""
    sizes = survey.splits[split].sizes
    lines = [
        f"  width x height: {format_size(sizes.smallest)} (smallest), {format_size(sizes.median)} (median), "
        f"{format_size(sizes.largest)} (largest); {count_things(sizes.distinct, 'size')}"
    ]
    for given in survey.tasks:
        lines += [f"  {given.task.name} task"] if given.task.name else []
        lines += _describe_labels(given.splits[split], given.label_names)
    return lines


def _describe_labels(split: LabelSurvey, names: dict[int, str]) -> list[str]:
    """Describe the labels of a split in one task: a row for each that occurs, then void."""
    total, borders = sum(split.pixels.values()), split.borders
    width = max(20, *(len(names[label]) for label in split.pixels))
    lines = [f"  {'':3} {'':{width}} {'pixels':>14} {'share':>8} {'images':>8}"]
    lines += [
        f"  {label:>3} {names[label]:{width}} {count:>14,} {100 * count / total:6.2f} % {split.images_with[label]:>8,}"
        for label, count in split.pixels.items()
    ]
    if borders.void:
        near = f"{100 * borders.near / borders.void:.0f} % of it within {REACH} pixels of a border between classes"
        lines.append(f"  void: {100 * borders.void / total:.1f} % of the pixels; {near}")
        if borders.length:
            lines.append(f"  borders between classes: {100 * borders.covered / borders.length:.0f} % lie under void")
    return lines


def describe_class_weights(survey: Survey) -> list[str]:
    """Describe the weights of the classes, with the flag to paste."""
    tasks = f" of the tasks {', '.join(given.task.name for given in survey.tasks)}" if len(survey.tasks) > 1 else ""
    return [
        f"weights for the rare classes{tasks}, from {survey.weights_from}: roots of the median frequency over that of "
        "each",
        f"  {format_class_weights(survey)}",
    ]


def format_class_weights(survey: Survey) -> str:
    """Write the weights of the classes of all tasks as the flag of `fcn-jax train`."""
    weights = [weight for given in survey.tasks for weight in given.class_weights]
    return f"--optim.class-weights {' '.join(f'{weight:.3g}' for weight in weights)}"


def describe_repeats(survey: Survey) -> list[str]:
    """Describe images that occur more than once, a line for each two splits, and warn of those that spoil scores."""
    if not survey.repeats:
        return ["no image occurs twice, and no two look alike"]
    return [_describe(repeats) for repeats in survey.repeats]


def _describe(repeats: Repeats) -> str:
    count = len(repeats.pairs)
    what = f"{count_things(count, 'image')} of {repeats.split} {'is' if count == 1 else 'are'}"
    same = "the same as" if repeats.kind == "equal" else "nearly the same as"
    where = f"others of {repeats.split}" if repeats.split == repeats.other else f"images of {repeats.other}"
    sign = "=" if repeats.kind == "equal" else "~"
    pairs = ", ".join(f"{one.name} {sign} {other.name}" for one, other, _ in repeats.pairs[:LISTED])
    more = ", ..." if count > LISTED else ""
    differ = sum(one.label != other.label for one, other, _ in repeats.pairs) if repeats.kind == "equal" else 0
    labels = f"; {differ:,} of these with another label" if differ else ""
    return f"{'warning: ' if repeats.spoils_scores else ''}{what} {same} {where}: {pairs}{more}{labels}"


def count_things(count: int, thing: str) -> str:
    """Write a number of things: 1 image, 2 images."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def format_size(size: tuple[int, int]) -> str:
    """Write a height and width as width x height."""
    return f"{size[1]}x{size[0]}"
