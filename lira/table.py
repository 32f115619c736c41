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
    `learned`, which needs the shadows' scores as well. about: what it compares, standing alone."""

    name: str
    fit: Callable | None
    about: str
    fewest_shadows: int = FEWEST_SHADOWS


_ROWS = (
    Attack("lira", formulas.fit_lira, "members against non-members, two Gaussians a sample (Carlini et al. 2022)"),
    Attack("lira-pooled", formulas.fit_lira_pooled, "lira with one variance for all samples on either side"),
    Attack("lira-bayes", fit_lira_bayes, "lira, means and variances drawn towards what all samples have in common"),
    Attack("lira-offline", formulas.fit_lira_offline, "how far above the models that never saw the sample"),
    Attack("lira-offline-pooled", formulas.fit_lira_offline_pooled, "lira-offline with one variance for all"),
    Attack("rmia", formulas.fit_rmia, "share of samples that this one beats by a factor of 2 (Zarifzadeh et al. 2024)"),
    Attack("rmia-offline", formulas.fit_rmia_offline, "rmia from models that never saw the sample"),
    Attack("ratio", formulas.fit_ratio, "log confidence in the right label, less its mean over the shadows"),
    Attack("ratio-offline", formulas.fit_ratio_offline, "ratio from models that never saw the sample"),
    Attack("loss", formulas.fit_loss, "confidence in the right label, one threshold for all samples"),
    Attack("learned", None, "a classifier on all of these, trained on the shadows only", learned.FEWEST_SHADOWS),
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
