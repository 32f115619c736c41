"""The code in the README runs as it is written there."""

import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from lira.attacks import run
from lira.attacks.metrics import auc
from tests.helpers.attack_inputs import inputs
from tests.helpers.scripts import ROOT


def block(name: str) -> str:
    """The indented block of a README that imports from lira."""
    blocks = re.findall(r"(?:(?: {4}.*)?\n)+", (ROOT / name).read_text(encoding="utf-8"))
    (found,) = [text for text in blocks if "from lira import" in text]
    return textwrap.dedent(found).strip() + "\n"


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_the_ten_lines_attack_scores(tmp_path, name):
    given = inputs(n_targets=1)
    np.savez(tmp_path / "theirs.npz", phi=given.phi, member=given.member, label=given.label)
    code = block(name)
    assert len([line for line in code.splitlines() if line]) <= 10
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    called = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (called.returncode, called.stderr) == (0, "")
    scored = run.attack_targets(given.phi, given.member, n_targets=1, attacks=["lira", "lira-bayes"])
    lines = called.stdout.splitlines()
    for line, one in zip(lines[:2], scored, strict=True):
        accuracy = ((one.score >= one.threshold) == given.member[0]).mean()
        assert line.startswith(f"{one.attack}: {accuracy:.1%}, AUC {auc(one.score, given.member[0]):.3f}, ")
    assert lines[2] == f"strongest by the shadows alone: {run.strongest(scored)}"
