"""The exception a user's mistake raises, and a run that cannot go on."""


class UserError(Exception):
    """A mistake the user can mend: the message names the thing and the remedy.

    The command line prints it as one line and exits with code 2, without a stack trace. Library callers catch it
    like any other exception.
    """


class DivergedError(UserError):
    """A run whose loss is not finite any more: with this config and seed it ends the same way every time."""
