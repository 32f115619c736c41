"""The table of attacks: a new attack is a new row.

Importing this module imports no attack: the function of a row is loaded when the attack runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from lira.errors import InputError
from lira.flags import find_name, suggest

CONVENTIONS = ("lira", "official")
MIN_SHADOWS = 4


@dataclass(frozen=True)
class Attack:
    """A row of the table.

    fit: "module:function" in lira.attacks; the function takes the shadows' Statistics and the AttackOptions and returns
    score(phi, log_p), see lira.attacks.statistics.Score. None for `learned`, which is trained on held-out shadows.
    official: the function that replaces fit with --convention official. description: for the report."""

    name: str
    fit: str | None
    description: str
    official: str | None = None
    min_shadows: int = MIN_SHADOWS

    def load(self, convention: str) -> Callable:
        """The function of this attack in a convention. Not for `learned`, which has none."""
        path = self.official if convention == "official" and self.official else self.fit
        module, _, function = str(path).partition(":")
        return getattr(import_module(f"lira.attacks.{module}"), function)


_ROWS = (
    Attack("lira", "gaussian:fit_lira", "two Gaussians per sample (Carlini et al. 2022)", "official:fit_lira"),
    Attack("lira-pooled", "gaussian:fit_lira_pooled", "lira with one variance per side", "official:fit_lira_pooled"),
    Attack("lira-bayes", "bayes:fit_lira_bayes", "lira with an empirical-Bayes prior over gaps and variances"),
    Attack("lira-offline", "gaussian:fit_lira_offline", "lira with non-members alone", "official:fit_lira_offline"),
    Attack(
        "lira-offline-pooled",
        "gaussian:fit_lira_offline_pooled",
        "lira-offline with one variance for all samples",
        "official:fit_lira_offline_pooled",
    ),
    Attack("rmia", "confidence:fit_rmia", "share of samples whose ratio is 2 times lower (Zarifzadeh et al. 2024)"),
    Attack("rmia-offline", "confidence:fit_rmia_offline", "rmia with non-members alone"),
    Attack("ratio", "confidence:fit_ratio", "log confidence in the true class minus its mean over the shadows"),
    Attack("ratio-offline", "confidence:fit_ratio_offline", "ratio with non-members alone"),
    Attack("loss", "confidence:fit_loss", "confidence in the true class, one threshold for all samples"),
    Attack("learned", None, "a classifier on the scores of other attacks, trained on the shadows only", min_shadows=8),
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ROWS}


def attack_name(text: str) -> str:
    """The attack of this name, written in any case. Raises InputError that suggests the nearest."""
    if name := find_name(text, ATTACKS):
        return name
    suggestion = suggest(text, ATTACKS) or ","
    raise InputError(f"no attack is called {text!r}{suggestion} choose from {', '.join(ATTACKS)}")


def select_attacks(names: Sequence[str] | None, n_shadows: int) -> list[str]:
    """The attacks of these names, None for all, for which n_shadows shadows suffice. Raises InputError if unknown."""
    selected = [attack_name(name) for name in names] if names else list(ATTACKS)
    return [name for name in selected if ATTACKS[name].min_shadows <= n_shadows]
