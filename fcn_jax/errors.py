"""Errors whose text is written for the user, and printed without a stack trace."""


class InputError(Exception):
    """An error in the user's input. The text gives the value, the rule and the remedy.

    It is not a ValueError, because libraries that call our functions catch those and change their text.
    """


class OutOfMemory(Exception):  # noqa: N818
    """A lack of memory on the host or a device. The text says where, how much was needed, and what to change."""
