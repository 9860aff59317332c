"""The exceptions for user errors and for diverged runs."""


class UserError(Exception):
    """An error the user can fix; the message names the cause and the remedy.

    The command line prints it on one line, without a stack trace, and exits with code 2. Library callers catch it like
    any other exception.
    """


class DivergedError(UserError):
    """The loss of a run is no longer finite; with the same config and seed the run always diverges."""
