"""phi from what a model of any origin returns: logits, probabilities, or phi itself.

Letters: M models, N target samples, A queries, K classes. Models come first, then samples; A may be missing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lira.attacks.statistics import scaled_logit
from lira.errors import InputError

OUTPUTS = ("phi", "logits", "probabilities")
SUM_TOLERANCE = 0.05  # of the probabilities of a sample: they may be rounded to two decimals
SOFTMAX_TOLERANCE = 1e-3  # logits that add up to 1 this closely, all of them in [0, 1], are no logits


@dataclass(frozen=True)
class Outputs:
    """phi: float (M, N) or (M, N, A). correct: bool of the same shape, whether no class has a higher output than the
    true one; None where phi alone is known. n_clipped: how many of phi are of a probability of exactly 0 or 1."""

    phi: np.ndarray
    correct: np.ndarray | None = None
    n_clipped: int = 0

    def describe(self) -> str:
        """What was clipped, for the terminal; else empty."""
        clipped = f"{self.n_clipped:,} of {self.phi.size:,} probabilities of the true class are exactly 0 or 1: clipped"
        return f"{clipped} to float precision, |phi| <= {np.abs(self.phi).max():.4g}" if self.n_clipped else ""


def looks_like_softmax(outputs: np.ndarray) -> bool:
    """Whether every row is a distribution over the classes. outputs: float (..., K)."""
    in_range = outputs.size and outputs.shape[-1] > 1 and outputs.min() >= 0 and outputs.max() <= 1
    return bool(in_range and np.abs(outputs.sum(axis=-1, dtype=np.float64) - 1).max() < SOFTMAX_TOLERANCE)


def to_phi(
    arrays: Mapping[str, np.ndarray], label: np.ndarray | None, *, n_samples: int, models_first: bool
) -> Outputs:
    """phi from the one array of OUTPUTS that `arrays` holds, by its definition in scaled_logit().

    label: int (N,), the true classes, which logits and probabilities need. models_first: otherwise the array holds the
    outputs of one model, without the axis of models, which the result has. Raises InputError."""
    n_axes = int(models_first)  # before the samples
    names = [name for name in OUTPUTS if name in arrays]
    if len(names) != 1:
        problem = (
            f"{' and '.join(names)} are given" if names else f"there is none among {', '.join(arrays) or 'nothing'}"
        )
        raise InputError(f"one of the arrays {', '.join(OUTPUTS)} is needed, but {problem}: save one of them")
    (name,), values = names, arrays[names[0]]
    n_classes_axis = int(name != "phi")
    if values.dtype.kind not in "fiu" or values.ndim - n_axes - 1 - n_classes_axis not in (0, 1) or 0 in values.shape:
        expected = ("models, " if models_first else "") + "samples" + (", classes" if n_classes_axis else "")
        raise InputError(
            f"{name} must be real numbers of shape ({expected}), not {values.dtype} {values.shape}: save it so"
        )
    if values.shape[n_axes] != n_samples and n_samples in values.shape:
        line = f"np.moveaxis({name}, {values.shape.index(n_samples)}, {n_axes})"
        raise InputError(f"{name} is transposed: {values.shape}, with {n_samples} samples; save {line}")
    if values.shape[n_axes] != n_samples:
        raise InputError(f"{name} has shape {values.shape}, but there are {n_samples} samples: save one row for each")
    values = values if models_first else values[None]
    if name == "phi":
        if values.min() >= 0 and values.max() <= 1:
            raise InputError(
                "phi lies in [0, 1] throughout, so that it is probably a probability: save the probabilities of all "
                "classes as `probabilities`, or phi = np.log(p / (1 - p))"
            )
        return Outputs(values)
    if label is None:
        raise InputError(f"{name} need the true classes: save label, one class number from 0 per sample")
    _check_classes(name, values, label)
    label = label.reshape(n_samples, *[1] * (values.ndim - 3))  # (N,), or (N, 1) beside queries
    models = [_of_model(name, model, label) for model in values]
    phi, correct, n_clipped = zip(*models, strict=True)
    return Outputs(np.stack(phi), np.stack(correct), sum(n_clipped))


def _of_model(name: str, outputs: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """(phi, correct, n_clipped) of one model. outputs: (N, K) or (N, A, K); label: int (N,) or (N, 1).

    Of probabilities phi = log(p_y) - log(sum of the others): 1 - p_y would lose the digits of a p_y near 1. Either is
    at least the rounding error of 1 in their type, or the smallest of them that is not 0, if that is less."""
    index = np.broadcast_to(label[..., None], (*outputs.shape[:-1], 1))
    of_true_class = np.take_along_axis(outputs, index, axis=-1)
    correct = of_true_class[..., 0] >= outputs.max(axis=-1)
    if name == "logits":
        return scaled_logit(outputs, label), correct, 0
    others = outputs.astype(np.float64)
    np.put_along_axis(others, index, 0.0, axis=-1)
    sides = np.stack([of_true_class[..., 0], others.sum(axis=-1)])  # p_y and 1 - p_y
    precision = np.finfo(outputs.dtype if outputs.dtype.kind == "f" else np.float64).eps
    log = np.log(np.maximum(sides, min(precision, sides[sides > 0].min())))
    return log[0] - log[1], correct, int((sides == 0).sum())


def _check_classes(name: str, values: np.ndarray, label: np.ndarray) -> None:
    """Whether the outputs are what their name says. values: (M, N, K) or (M, N, A, K). Raises InputError."""
    n_classes = values.shape[-1]
    if n_classes < 2:
        both = "[1 - p, p]" if name == "probabilities" else "[0 * z, z]"
        raise InputError(f"{name} have 1 column: save one for each of two classes, np.concatenate({both}, axis=-1)")
    if label.max() >= n_classes:
        raise InputError(f"{name} have {n_classes} columns, but there is a label {label.max()}: save all classes")
    for row, model in enumerate(values):
        low, high = (0, 1) if name == "probabilities" else (-np.inf, np.inf)
        wrong = np.argwhere(~(np.isfinite(model) & (model >= low) & (model <= high)))
        if len(wrong):
            value = model[tuple(wrong[0])]
            problem = f"model {row}, sample {wrong[0][0]}, class {wrong[0][-1]} is {value:g}"
            what = (
                "lie in 0..1: save logits under that name"
                if name == "probabilities"
                else ("be finite: save probabilities instead, whose zeros are clipped")
            )
            raise InputError(f"{name} must {what}; {problem}")
        sums = model.sum(axis=-1, dtype=np.float64)
        wrong = np.argwhere(np.abs(sums - 1) > SUM_TOLERANCE)
        if name == "probabilities" and len(wrong):
            raise InputError(
                f"probabilities of all classes must add up to 1, but those of model {row}, sample {wrong[0][0]} to "
                f"{sums[tuple(wrong[0])]:g}: save all classes, of a softmax and not of a sigmoid per class"
            )
        if name == "logits" and looks_like_softmax(model):
            raise InputError(
                f"logits of model {row} lie in [0, 1] and add up to 1, so that they are probably probabilities: save "
                "them as `probabilities`, or take the outputs before the softmax"
            )
