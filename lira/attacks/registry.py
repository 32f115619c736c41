"""The table of attacks: a new attack is a new row.

Importing it imports no attack: the function of a row is loaded when the attack runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from lira.attacks.inputs import MIN_SHADOWS
from lira.errors import InputError


@dataclass(frozen=True)
class Attack:
    """A row of the table.

    fit: "module:function" in lira.attacks; the function takes the shadows' Statistics and the AttackOptions and returns
    score(phi, log_p), see lira.attacks.gaussian. None for `learned`, which needs the shadows' scores as well.
    official: the function that stands in for it with --convention official.
    description: what the attack compares, for the report."""

    name: str
    fit: str | None
    description: str
    official: str | None = None
    min_shadows: int = MIN_SHADOWS

    def load(self, convention: str) -> Callable:
        """The function of this attack, imported now."""
        name = self.official if convention == "official" and self.official else self.fit
        module, _, function = str(name).partition(":")
        return getattr(import_module(f"lira.attacks.{module}"), function)


_ROWS = (
    Attack(
        "lira",
        "gaussian:fit_lira",
        "members against non-members, two Gaussians per sample (Carlini et al. 2022)",
        official="official:fit_lira",
    ),
    Attack(
        "lira-pooled",
        "gaussian:fit_lira_pooled",
        "lira with one variance per side for all samples",
        official="official:fit_lira_pooled",
    ),
    Attack("lira-bayes", "bayes:fit_lira_bayes", "lira with an empirical-Bayes prior over gaps and variances"),
    Attack(
        "lira-offline",
        "gaussian:fit_lira_offline",
        "one-sided test against shadows that never saw the sample",
        official="official:fit_lira_offline",
    ),
    Attack(
        "lira-offline-pooled",
        "gaussian:fit_lira_offline_pooled",
        "lira-offline with one variance for all samples",
        official="official:fit_lira_offline_pooled",
    ),
    Attack(
        "rmia", "confidence:fit_rmia", "share of samples that this one beats by a factor of 2 (Zarifzadeh et al. 2024)"
    ),
    Attack("rmia-offline", "confidence:fit_rmia_offline", "rmia from shadows that never saw the sample"),
    Attack("ratio", "confidence:fit_ratio", "log confidence in the true class minus its mean over the shadows"),
    Attack("ratio-offline", "confidence:fit_ratio_offline", "ratio from shadows that never saw the sample"),
    Attack("loss", "confidence:fit_loss", "confidence in the true class, one threshold for all samples"),
    Attack("learned", None, "a classifier on all of these, trained on the shadows only", min_shadows=8),
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ROWS}


def select_attacks(names: Sequence[str] | None, n_shadows: int) -> list[str]:
    """The attacks of these names, by default all, that n_shadows shadows are enough for. Raises InputError."""
    for name in names or ():
        if name not in ATTACKS:
            raise InputError(f"unknown attack {name!r}: choose from {', '.join(ATTACKS)}")
    return [name for name in names or ATTACKS if ATTACKS[name].min_shadows <= n_shadows]
