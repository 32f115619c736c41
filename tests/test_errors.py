"""Errors of libraries in one line."""

import pytest

from lira.errors import one_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("no such key\nand its traceback", "ValueError: no such key"),
        (
            "errors in loading:\n\ta is missing\n\tb is missing",
            "ValueError: errors in loading: a is missing b is missing",
        ),
        ("", "ValueError"),
    ],
)
def test_the_message_of_any_error_becomes_one_line(message, line):
    assert one_line(ValueError(message)) == line


def test_a_long_message_is_shortened():
    line = one_line(ValueError("word " * 100))
    assert len(line) <= 240
    assert line.endswith(" …")
