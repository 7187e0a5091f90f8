"""The one exception for input that cannot be used: what was wrong, what was given, how to fix it."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input from the user. Its message is one line; the command line prints it and exits with 2."""
