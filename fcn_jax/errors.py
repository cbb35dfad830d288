"""Errors whose text is for the user and is printed without a stack trace."""


class InputError(Exception):
    """Input from the user that does not fit. The text says what was got, the rule, and the remedy.

    It is not a ValueError, because libraries that call our functions catch those and change their text.
    """


class OutOfMemory(Exception):  # noqa: N818
    """Too little memory on the host or a device. The text says where, how much was needed, and what to change."""
