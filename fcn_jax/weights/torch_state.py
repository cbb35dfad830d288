"""The network's tensors in what a training program saves beside its optimizer, arguments and counters."""

from pathlib import Path
from typing import Any, NamedTuple

from fcn_jax.errors import InputError
from fcn_jax.weights.torch_pickle import Tensor, describe_unknown

# Entries that hold a network. If a file has several, the first one of this list is what the program that wrote it loads
# by default: timm its average over steps (state_dict_ema); torchvision, DeiT and ConvNeXt model and not model_ema;
# OpenMMLab state_dict, where it puts the average; DINO the teacher.
ENTRIES = (
    "state_dict_ema",
    "state_dict",
    "model",
    "model_state",
    "model_state_dict",
    "ema_state_dict",
    "model_ema",
    "teacher",
)
SAVE = "save the weights alone: torch.save(model.state_dict(), file)"


class State(NamedTuple):
    """The tensors of a network.

    Attributes:
        tensors: descriptions of the tensors by name.
        place: where they are in the file, for messages: "entry 'model', not 'model_ema'"; "" at the top.
    """

    tensors: dict[str, Tensor]
    place: str


def find_state(content: Any, file: Path) -> State:
    """Find the tensors of the network: under one of `ENTRIES`, at the top, or in the only dictionary that has some.

    Args:
        content: the content of the file, which may contain itself.
        file: the name of the file, for messages.

    Returns:
        The state; without tensors if the file has none by name.

    Raises:
        InputError: several dictionaries have tensors, or something that is no tensor is in the place of one.
    """
    place, state = _descend(content, file, {}, set())
    tensors = {name: value for name, value in state.items() if _is_named_tensor(name, value)}
    if not tensors:
        state = {"the content": content}
        for inner in (content, *(content.get(name) for name in ENTRIES)) if isinstance(content, dict) else ():
            state |= inner if isinstance(inner, dict) else {}
    objects = [f"{name!r} is {text}" for name, value in state.items() if (text := describe_unknown(value))]
    if objects:
        what = "objects among its tensors" if tensors else "no tensors by name, but objects"
        raise InputError(
            f"{file} has {what}, which are not built, because that could run code: {', '.join(objects[:3])}; {SAVE}"
        )
    return State(tensors, place)


def _descend(content: Any, file: Path, counts: dict[int, int], seen: set[int]) -> tuple[str, dict[Any, Any]]:
    """Return the place of the network's tensors and the dictionary that has them; an empty one if there is none.

    Args:
        content: what to look in.
        file: the name of the file, for messages.
        counts: the number of tensors of dictionaries by their id. A dictionary may be in many places.
        seen: ids of the dictionaries that were looked in before.
    """
    if not isinstance(content, dict) or id(content) in seen:
        return "", {}
    seen.add(id(content))
    inner = {name: _descend(content[name], file, counts, seen) for name in ENTRIES if name in content}
    states = {name: found for name, found in inner.items() if found[1]}
    if not states:
        # A lone tensor at the top, such as the best score, is not the network.
        count = _count_tensors(content, counts)
        states = {name: ("", value) for name, value in content.items() if _count_tensors(value, counts) > count}
        if not states and count:
            return "", content
        if len(states) > 1:
            raise InputError(
                f"{file} has tensors in several entries, {', '.join(map(repr, states))}, and none is named state_dict "
                f"or model; {SAVE}"
            )
    if not states:
        return "", {}
    (name, (place, state)), *others = states.items()
    left = f", not {' or '.join(repr(other) for other, _ in others)}" if others else ""
    return f"entry {name!r}{left}" + (f", {place}" if place else ""), state


def _count_tensors(value: Any, counts: dict[int, int]) -> int:
    if not isinstance(value, dict):
        return 0
    if id(value) not in counts:
        counts[id(value)] = sum(_is_named_tensor(*item) for item in value.items())
    return counts[id(value)]


def _is_named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)
