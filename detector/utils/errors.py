"""The exceptions that are told in a sentence; any other is a defect and keeps its traceback."""

from detector.utils.names import one_line


class InputError(ValueError):
    """The user's input is wrong: a sentence saying what, where and the nearest right thing.

    The tools print it as `error: ...` and exit with code 2. What it quotes is whatever somebody wrote into a file: the
    sentence is one line, of bounded length, and has no character that a terminal would obey.
    """

    def __init__(self, message: object):
        super().__init__(one_line(str(message)))


class RunError(RuntimeError):
    """What the user asked for is right but cannot go on: a sentence saying why (a process was killed, say).

    The tools print it as `error: ...` and exit with code 1.
    """
