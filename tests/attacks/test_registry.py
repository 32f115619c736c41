"""The table of attacks: the rows that a call gets, and the functions that they name."""

import subprocess
import sys

import pytest

from lira.attacks import confidence, gaussian, official
from lira.attacks.registry import ATTACKS, CONVENTIONS, attack_name, select_attacks
from tests.helpers.errors import input_error_line
from tests.helpers.scripts import ROOT


def test_by_default_all_that_the_shadows_allow_in_the_order_of_the_table():
    assert select_attacks(None, 8) == list(ATTACKS)
    assert select_attacks(None, 7) == [name for name in ATTACKS if name != "learned"]
    assert next(iter(ATTACKS)) == "lira"  # the row that the user knows comes first


def test_names_keep_the_order_of_the_request():
    assert select_attacks(["loss", "learned", "lira"], 20) == ["loss", "learned", "lira"]
    assert select_attacks(["loss", "learned", "lira"], 4) == ["loss", "lira"]


def test_a_name_is_found_in_any_case():
    assert [attack_name(name) for name in ("lira", "LiRA-Bayes", "RMIA")] == ["lira", "lira-bayes", "rmia"]
    assert select_attacks(["Loss", "LIRA"], 20) == ["loss", "lira"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        *[("liar", ", did you mean lira?"), ("LiRA_Bayes", ", did you mean lira-bayes?"), ("magic", ",")],
        *[("rmia-ofline", ", did you mean rmia-offline?"), ("", ",")],
    ],
)
def test_an_unknown_name_is_named_with_the_nearest_and_the_known_ones(name, suggestion):
    for line in (input_error_line(attack_name, name), input_error_line(select_attacks, ["lira", name], 20)):
        assert line == f"no attack is called {name!r}{suggestion} choose from {', '.join(ATTACKS)}"


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_function_of_every_row_loads(convention):
    functions = [attack.load(convention) for attack in ATTACKS.values() if attack.fit]
    assert len(set(functions)) == len(ATTACKS) - 1  # all but `learned`
    assert ATTACKS["lira"].load(convention) is {"lira": gaussian, "official": official}[convention].fit_lira
    assert ATTACKS["ratio"].load(convention) is confidence.fit_ratio


@pytest.mark.parametrize(
    ("imports", "unwanted"),
    [
        ("lira.attacks.registry", ["scipy", "sklearn"]),
        ("lira.attacks.statistics, lira.attacks.registry, lira.attacks.tables, lira.report.text", ["sklearn"]),
    ],
)
def test_the_table_and_the_report_load_no_attack(imports, unwanted):
    """So that flags are checked, and finished results reported, without waiting for scikit-learn."""
    command = [sys.executable, "-c", f"import sys, {imports}; print(*sys.modules)"]
    modules = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "lira.attacks.registry" in modules
    attacks = [f"lira.attacks.{name}" for name in ("learned", "bayes", "gaussian", "official", "confidence")]
    assert not {*unwanted, *attacks} & set(modules)
