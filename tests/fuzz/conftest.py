"""What every hostile file must come to: one printable line."""

import pytest

from detector.utils.errors import InputError


@pytest.fixture
def refusal():
    """The message with which a call is refused."""

    def refusal(attempt) -> str:
        with pytest.raises(InputError) as error:
            attempt()
        text = str(error.value)
        assert len(text) <= 1500 and "\n" not in text and "\x1b" not in text
        return text

    return refusal
