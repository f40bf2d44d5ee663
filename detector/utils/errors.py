"""The one exception for what a user can get wrong."""

from detector.utils.names import one_line


class InputError(ValueError):
    """The user's input is wrong: a sentence saying what, where and the nearest right thing.

    The tools print it as `error: ...` and exit with code 2; any other exception is a defect and keeps its traceback.
    What it quotes is whatever somebody wrote into a file: the sentence is one line, of bounded length, and has no
    character that a terminal would obey.
    """

    def __init__(self, message: object):
        super().__init__(one_line(str(message)))
