"""Errors of libraries in one line."""

import io
import subprocess
import sys

import pytest

from lira.errors import guarded_output, log, one_line, printable, warn
from tests.helpers.scripts import ENVIRONMENT


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


# --- what is printed -------------------------------------------------------------------------------------------------

HOSTILE = "\x1b]0;title\x07\x9b2J\r\u202egnp.exe\udcff"
ESCAPED = r"\x1b]0;title\x07\x9b2J\r\u202egnp.exe\udcff"


def test_control_characters_are_escaped_in_messages(capsys):
    assert printable(HOSTILE) == ESCAPED
    assert printable("ﬁ\té 猫 ‍ \n") == "ﬁ\té 猫 ‍ \n"
    log(HOSTILE + "\nsecond")
    warn(HOSTILE)
    assert capsys.readouterr().err == f"{ESCAPED} second\nwarning: {ESCAPED}\n"


def test_in_the_output_of_a_script_bold_and_progress_bars_are_kept(monkeypatch):
    out, err = io.StringIO(), io.TextIOWrapper(io.BytesIO(), "ascii", newline="")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with guarded_output():
        print(f"\033[1m{HOSTILE}\033[0m")
        print("\r 50% †\x1b[A\x1b[2J", file=sys.stderr)
    assert out.getvalue() == f"\033[1m{ESCAPED}\033[0m\n"
    assert err.buffer.getvalue() == b"\r 50% \\u2020\x1b[A\\x1b[2J\n"
    assert (sys.stdout, sys.stderr) == (out, err)


PRINTS = """
import pathlib, sys, util
def body(config):
    for line in range(3000): print("†", line, flush=line == 0)
    pathlib.Path("file").write_text("results"); print("on stderr", file=sys.stderr)
sys.exit(util.run_script(body, [], script="", description=""))
"""


@pytest.mark.parametrize(
    ("redirection", "status", "out", "err"),
    [
        ("| head -1", 0, "† 0\n", "on stderr\n"),
        (">&-", 0, "", "on stderr\n"),
        ("<&- >&- 2>&-", 0, "", ""),
        ("2>/dev/full | head -1", 0, "† 0\n", ""),
        (">/dev/full", 1, "", "on stderr\nerror: cannot write to stdout: No space left on device; the results are "),
    ],
)
def test_output_that_cannot_be_written_does_not_stop_the_work(redirection, status, out, err, tmp_path):
    (tmp_path / "prints.py").write_text(PRINTS)
    command = f"set -o pipefail; {sys.executable} prints.py {redirection}"
    called = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (tmp_path / "file").read_text() == "results", "no file took the place of a closed stream"
    assert (called.returncode, called.stdout) == (status, out)
    assert called.stderr.startswith(err)
    assert len(called.stderr.splitlines()) == len(err.splitlines())
