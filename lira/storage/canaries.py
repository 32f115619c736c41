"""The results of the gradient canaries of all targets, as the attack collects them: canaries.npz, mechanism.csv."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lira.errors import CorruptedFile, warn
from lira.privacy.audit import CanaryScores, Mechanism
from lira.privacy.mechanism import Estimate, Outcome, check_mechanisms
from lira.storage.names import model_name
from lira.storage.runs import Run


@dataclass(frozen=True)
class CanaryResults:
    """Of each target, (T,): scores with coins, and the estimates of the mechanism check."""

    scores: tuple[CanaryScores, ...]
    estimates: tuple[tuple[Estimate, ...], ...]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Those of canaries.npz: target, score and member of every canary."""
        columns = {name: np.concatenate([getattr(each, name) for each in self.scores]) for name in ("score", "member")}
        return {"target": np.repeat(np.arange(len(self.scores)), [len(each.score) for each in self.scores])} | columns

    def mechanism_table(self, mechanisms: Sequence[Mechanism]) -> pd.DataFrame:
        """mechanism.csv: one row per target, check and scope, see check_mechanisms()."""
        by_target = enumerate(check_mechanisms(self.estimates, mechanisms))
        rows = [(model_name("target", index), *outcome) for index, outcomes in by_target for outcome in outcomes]
        return pd.DataFrame(rows, columns=["target", *Outcome._fields])


def load_canaries(run: Run, n_targets: int) -> CanaryResults | None:
    """Of the first targets; None where one was trained without canaries or, with a warning, has lost their results."""
    scores, estimates = [], []
    for index in range(n_targets):
        if not run.record("target", index).get("canaries"):
            return None
        try:
            arrays = run.load_canaries("target", index)
        except (FileNotFoundError, CorruptedFile) as error:
            reason = error if isinstance(error, CorruptedFile) else f"{error.filename} is missing; restore it"
            warn(f"no audit by gradient canaries: {reason}")
            return None
        scores.append(CanaryScores(arrays["score"], arrays["member"]))
        columns = (arrays[name].tolist() for name in Estimate._fields)
        estimates.append(tuple(Estimate(*row) for row in zip(*columns, strict=True)))
    return CanaryResults(tuple(scores), tuple(estimates))
