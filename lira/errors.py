"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: one line that says what was wrong, the value received and what to do.

    The scripts print it without a traceback and end with exit status 2."""
