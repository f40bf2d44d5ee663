"""Exceptions that a user reads as one sentence. Any other exception is a defect and shows its traceback."""

from detector.utils.text import one_line


class InputError(ValueError):
    """The user's input is wrong. The message says what, where, and the nearest right thing.

    The tools print it as `error: ...` and exit with code 2. The message may quote text from a file: it is made one line
    of bounded length, without characters that a terminal would obey.
    """

    def __init__(self, message: object):
        super().__init__(one_line(str(message)))


class RunError(RuntimeError):
    """The user's input is right, but the work cannot go on (a process was killed, say). The message says why.

    The tools print it as `error: ...` and exit with code 1.
    """
