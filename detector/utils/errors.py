"""The one exception for what a user can get wrong."""


class InputError(ValueError):
    """The user's input is wrong: a sentence saying what, where and the nearest right thing.

    The tools print it as `error: ...` and exit with code 2; any other exception is a defect and keeps its traceback.
    """
