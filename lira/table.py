"""The table of attacks: a new attack is a new row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import formulas, learned
from .bayes import fit_lira_bayes
from .errors import InputError

FEWEST_SHADOWS = 4


@dataclass(frozen=True)
class Attack:
    """A row of the table. fit(statistics, options) gives score(phi, log_p), see `lira.formulas`; None for
    `learned`, which needs the shadows' scores as well."""

    name: str
    fit: Callable | None
    about: str
    fewest_shadows: int = FEWEST_SHADOWS


_ROWS = (
    Attack("lira", formulas.fit_lira, "Gaussians of members and non-members, per sample"),
    Attack("lira-pooled", formulas.fit_lira_pooled, "the same with one variance a side"),
    Attack("lira-bayes", fit_lira_bayes, "Gaussians with means and variances shrunk by a learned prior"),
    Attack("lira-offline", formulas.fit_lira_offline, "one-sided test against non-members"),
    Attack("lira-offline-pooled", formulas.fit_lira_offline_pooled, "the same with one variance"),
    Attack("rmia", formulas.fit_rmia, "share of samples beaten by a factor gamma"),
    Attack("rmia-offline", formulas.fit_rmia_offline, "the same from non-members alone"),
    Attack("ratio", formulas.fit_ratio, "log confidence less its mean over the shadows"),
    Attack("ratio-offline", formulas.fit_ratio_offline, "the same from non-members alone"),
    Attack("loss", formulas.fit_loss, "one threshold on the confidence"),
    Attack("learned", None, "a classifier on all of these, trained on the shadows", learned.FEWEST_SHADOWS),
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ROWS}


def chosen(attacks, n_shadows):
    """The names asked for; by default all that the number of shadows allows."""
    if attacks is None:
        return [name for name in ATTACKS if ATTACKS[name].fewest_shadows <= n_shadows]
    for name in attacks:
        if name not in ATTACKS:
            raise InputError(f"unknown attack {name!r}: choose from {', '.join(ATTACKS)}")
    return [name for name in attacks if ATTACKS[name].fewest_shadows <= n_shadows]
