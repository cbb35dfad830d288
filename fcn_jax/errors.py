"""The one error of bad input; whoever shows it to a user prints its text without a trace."""


class InputError(Exception):
    """Something a user gave does not fit: its text says what was got, the rule, and the remedy.

    No ValueError, which libraries that call us back take for one of their own and dress up.
    """
