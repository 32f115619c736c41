"""README, README.ja.md and docs/*.md as the tests read them: their code, commands, tables and prose."""

import re
import shlex
import textwrap
from functools import cache

from tests.helpers.scripts import ROOT

READMES = ("README.md", "README.ja.md")
DOCS = tuple(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))


@cache
def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[str]:
    """The indented blocks of a document, dedented."""
    found = re.findall(r"(?m)^\n((?: {4}.*\n(?:\n(?= {4}))?)+)", read(name))
    return [textwrap.dedent(text).strip() + "\n" for text in found]


def python(name: str, word: str) -> str:
    """The one block of Python in a document that holds a word."""
    (block,) = (block for block in blocks(name) if "import " in block and word in block)
    return block


def commands(name: str) -> list[tuple[str, list[str]]]:
    """(script, flags) of every command in the blocks of a document."""
    text = "".join(blocks(name)).replace("\\\n", " ")
    found = re.findall(r"^.*?\b(train_model\.py|attack_lira\.py) (.*)$", text, flags=re.MULTILINE)
    return [(script, shlex.split(flags.replace("$SLURM_ARRAY_TASK_ID", "1"), comments=True)) for script, flags in found]


def tables(text: str) -> list[list[str]]:
    """The cells of every row of the tables in a text, without the lines below headings; an escaped | is no border."""
    rows = re.findall(r"(?m)^\| (.*) \|$", text)
    return [re.split(r"(?<!\\) \| ?", row) for row in rows if not set(row) <= set("-| ")]


def prose(name: str) -> str:
    """A document without blocks, code, the targets of links and the names of files."""
    text = re.sub(r"(?m)^ {4}.*$", "", read(name))
    return re.sub(r"\]\([^)]*\)|[\w/]+\.md\b", "]", re.sub(r"`[^`]*`", "", text))


def sections(name: str) -> dict[str, str]:
    """Heading -> the text below it, of the headings of every depth."""
    parts = re.split(r"(?m)^#+ (.*)$", read(name))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def anchor(heading: str) -> str:
    """As the hosts of repositories derive it from a heading."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"&\w+;", "", heading).lower()).replace(" ", "-")
