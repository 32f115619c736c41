"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: one line that says what was wrong, the value received and what to do.

    The scripts print it without a traceback and end with exit status 2."""


class ModelError(RuntimeError):
    """One model could not be trained; its name and the reason are the message. The other models go on."""
