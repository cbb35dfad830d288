"""Errors whose text is for the user: whoever shows them prints it without a trace."""


class InputError(Exception):
    """Something a user gave does not fit: its text says what was got, the rule, and the remedy.

    No ValueError, which libraries that call us back take for one of their own and dress up.
    """


class OutOfMemory(Exception):  # noqa: N818
    """Memory ran out on the host or a device: its text says where, what was needed, and what to lower."""
