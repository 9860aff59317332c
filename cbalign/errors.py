"""The one exception a user's mistake raises."""


class UserError(Exception):
    """A mistake the user can mend: the message names the thing and the remedy.

    The command line prints it as one line and exits with code 2, without a stack trace. Library callers catch it
    like any other exception.
    """
