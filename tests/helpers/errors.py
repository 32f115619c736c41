"""The message of an InputError."""

import pytest

from lira.errors import InputError


def input_error_line(function, *args, **options) -> str:
    """The message, a single line, of the InputError that function(*args, **options) raises."""
    with pytest.raises(InputError) as caught:
        function(*args, **options)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    return line
