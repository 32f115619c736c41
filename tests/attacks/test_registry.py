"""The table of attacks: which rows a call gets."""

import pytest

from lira.attacks.registry import ATTACKS, select_attacks
from lira.errors import InputError


def test_by_default_all_that_the_shadows_allow_in_the_order_of_the_table():
    assert select_attacks(None, 8) == list(ATTACKS)
    assert select_attacks(None, 7) == [name for name in ATTACKS if name != "learned"]
    assert next(iter(ATTACKS)) == "lira"  # the row that the user knows comes first


def test_names_keep_the_order_in_which_they_were_asked_for():
    assert select_attacks(["loss", "learned", "lira"], 20) == ["loss", "learned", "lira"]
    assert select_attacks(["loss", "learned", "lira"], 4) == ["loss", "lira"]


def test_an_unknown_name_is_named_with_those_there_are():
    with pytest.raises(InputError, match="unknown attack 'liar': choose from lira, lira-pooled") as caught:
        select_attacks(["liar"], 20)
    assert "\n" not in str(caught.value)
