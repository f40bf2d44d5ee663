"""The exceptions that are told in a sentence; any other is a defect and keeps its traceback."""


class InputError(ValueError):
    """The user's input is wrong: a sentence saying what, where and the nearest right thing.

    The tools print it as `error: ...` and exit with code 2.
    """


class RunError(RuntimeError):
    """What the user asked for is right but cannot go on: a sentence saying why (a process was killed, say).

    The tools print it as `error: ...` and exit with code 1.
    """
