"""Models trained elsewhere that are attacked as targets: the weights of --target-weights, the outputs of
--target-outputs, and which target samples each was trained on.

Letters: T models, N target samples, A queries, K classes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lira.attacks.outputs import OUTPUTS, Outputs, to_phi
from lira.data.images import Images, check_member
from lira.errors import InputError, warn
from lira.storage.checkpoints import Checkpoint, read_checkpoint
from lira.storage.checksums import digest, file_digest
from lira.storage.config import read_config
from lira.storage.names import Job, model_name, safe_name
from lira.storage.owner import Source
from lira.storage.runs import MODEL_COLUMNS, Run
from lira.storage.scores import arrays_from_elsewhere, check_label, prefixed, save_scores

LONGEST_NAME = 200  # characters of a folder
MAX_ACCURACY_GAP = 0.05  # between a model from elsewhere and the shadows, before a warning


def folder_name(run: str, files: Iterable[str]) -> str:
    """The folder of the results of an attack on models from elsewhere with the shadows of a run."""
    stems = [safe_name(Path(file).stem) for file in files]
    name = "+".join([run, *stems])
    return name if len(name) <= LONGEST_NAME else f"{run}+{stems[0]}+{digest(stems)[:8]}"[:LONGEST_NAME]


def results_beside(run: Run, files: Sequence[str]) -> Run:
    """A run with the results of an attack on models from elsewhere with its shadows: result/<run>+<file stem>/."""
    return replace(run, results=run.results.parent / folder_name(run.results.name, files))


@dataclass(frozen=True)
class OwnTargets:
    """The user's own models. phi: float32 (T, N, A); member: bool (T, N); guarantees: float (T, 2), epsilon, NaN where
    it is not known, and delta; table: their rows of models.csv, where the test accuracy is that on the target samples
    that a model was not trained on."""

    files: tuple[str, ...]
    phi: np.ndarray
    member: np.ndarray
    guarantees: np.ndarray
    table: pd.DataFrame

    def describe(self, shadows: pd.DataFrame) -> str:
        """One line for each model, and a warning where its accuracy is unlike the shadows'. shadows: of models.csv."""
        of_shadows, lines = shadows.test_accuracy.mean(), []
        for file, member, row in zip(self.files, self.member, self.table.itertuples(), strict=True):
            line = f"target_{row.Index:02d} is {file}: trained on {member.sum():,} of {len(member):,} target samples"
            sides = ((row.train_accuracy, "these"), (row.test_accuracy, "the others"))
            accuracies = [f"{accuracy:.1%} of {which}" for accuracy, which in sides if not np.isnan(accuracy)]
            if accuracies:
                line += (
                    f"; it classifies {' and '.join(accuracies)} correctly, the shadows {of_shadows:.1%} of new images"
                )
            lines.append(line)
            if abs(row.test_accuracy - of_shadows) > MAX_ACCURACY_GAP:
                warn(
                    f"{file} classifies {row.test_accuracy:.1%} of new images correctly, the shadows {of_shadows:.1%}: "
                    "are its inputs normalised and its classes ordered as in its training, and are the shadows trained "
                    "as it was? Shadows unlike the target make the attack weaker"
                )
        return "\n".join(lines)

    @cached_property
    def provenance(self) -> list[dict[str, str]]:
        """What attack.json records of each file."""
        return [
            {"target": model_name(*job), "file": file, "sha256": file_digest(Path(file))}
            for job, file in zip(self.jobs, self.files, strict=True)
        ]

    @property
    def jobs(self) -> list[Job]:
        return [("target", index) for index in range(len(self.files))]

    def source(self, run: Run) -> Source:
        """Whose the folder of the results is: these files with the shadows of the run."""
        content = [run.identity, *(target["sha256"] for target in self.provenance)]
        return Source(" ".join(str(Path(file).resolve()) for file in self.files), digest(content), run.identity)

    def save(self, run: Run, *, phi: np.ndarray, member: np.ndarray, label: np.ndarray, shadows: pd.DataFrame) -> None:
        """Write config.json, which names the run, models.csv and scores.npz. run: results_beside() that of the shadows;
        phi, member: of these models and of the shadows; shadows: their rows of models.csv."""
        run.save_json("config.json", read_config(run.models) | {"shadows_of": run.name})
        run.save_table("models.csv", pd.concat([self.table, shadows])[MODEL_COLUMNS])
        role = (np.arange(len(phi)) >= len(self.files)).astype(np.int8)  # positions in ROLES
        save_scores(run, phi=phi, member=member, label=label, role=role)


def own_targets(
    weights: Sequence[str],
    outputs: Sequence[str],
    images: Images,
    *,
    query: Callable[[Checkpoint], np.ndarray],
    member_of: Callable[[Job, dict], np.ndarray | None],
    delta: float,
) -> OwnTargets:
    """Query the models of --target-weights, and read the outputs of --target-outputs. Raises InputError.

    query(checkpoint): logits (A, N, K). member_of(job, identity): the members of a model of another run. delta: of the
    guarantee where the file states none. The members are those that the file states, or its own run, else those of the
    dataset."""
    label, files = images.y_test.numpy(), (*weights, *outputs)
    targets: list[tuple[np.ndarray, ...]] = []
    rows = []
    for index, file in enumerate(files):
        record = {"epsilon": np.nan, "delta": delta}
        if file in weights:
            checkpoint = read_checkpoint(Path(file))
            logits, member = query(checkpoint).transpose(1, 0, 2), checkpoint.member  # (N, A, K)
            with prefixed(f"--target-weights {file}"):
                result = to_phi({"logits": logits}, label, n_samples=len(label), models_first=False)
            if trained := checkpoint.trained_as():
                member = member_of(*trained)
            record |= {key: value for key, value in (checkpoint.record or {}).items() if key in record and value}
        else:
            result, member = read_outputs(Path(file), label, images.n_classes)
        if member is None:
            member = _member_in_dataset(images, index, files)
        member = check_member(file, member, len(label))[0]
        row: dict[str, object] = {"role": "target", "index": index} | record
        for name, side in (("train_accuracy", member), ("test_accuracy", ~member)):
            correct = None if result.correct is None else result.correct.reshape(len(label), -1)[side, 0]
            row[name] = np.nan if correct is None or not len(correct) else correct.mean()
        rows.append(row)
        targets.append((result.phi.reshape(len(label), -1).astype(np.float32), member, np.array([*record.values()])))
    phi, members, guarantees = (np.stack(parts) for parts in zip(*targets, strict=True))
    return OwnTargets(files, phi, members, guarantees, pd.DataFrame(rows))


def _member_in_dataset(images: Images, index: int, files: Sequence[str]) -> np.ndarray:
    """bool (N,), of the model in files[index]. Raises InputError where the dataset does not state it."""
    if images.member is None:
        raise InputError(
            f"which target samples {files[index]} was trained on is not stated: save member (N,), True where it was "
            "trained on that image of x_test, in the .npz of --dataset or of --target-outputs, or beside the "
            "state_dict of --target-weights; in a folder of images, name them in members.txt"
        )
    if len(images.member) not in (1, len(files)):
        n_rows = len(images.member)
        raise InputError(f"member of the dataset has {n_rows} rows for {len(files)} targets: save one row for each")
    return images.member[index % len(images.member)]


def check_no_shadow(checkpoint: Checkpoint, run: Run, shadows: Iterable[Job]) -> None:
    """Raises InputError where a shadow of the run has these weights: it cannot be a target beside itself."""
    sha256 = checkpoint.sha256
    for job in shadows:
        if run.record(*job)["sha256"] == sha256:
            name = model_name(*job)
            raise InputError(f"{checkpoint.path} holds the weights of {name} of this run: --leave-one-out attacks it")


def read_outputs(path: Path, label: np.ndarray, n_classes: int) -> tuple[Outputs, np.ndarray | None]:
    """(outputs (1, N), member) of --target-outputs: phi, logits or probabilities at the target samples, whose true
    classes are label, int64 (N,). member: as in the file, or None. Raises InputError."""
    arrays = arrays_from_elsewhere("--target-outputs", path, (*OUTPUTS, "member", "label"))
    with prefixed(f"--target-outputs {path}"):
        if "label" in arrays and (wrong := np.flatnonzero(check_label(arrays["label"], len(label)) != label)).size:
            raise InputError(
                f"label differs from the dataset's in {wrong.size} of {len(label)} samples, the first is {wrong[0]}: "
                "save one row per target sample, in the order of x_test"
            )
        outputs = to_phi(arrays, label, n_samples=len(label), models_first=False)
        for name in OUTPUTS[1:]:
            if name in arrays and arrays[name].shape[-1] != n_classes:
                raise InputError(
                    f"{name} have {arrays[name].shape[-1]} columns, the dataset has {n_classes} classes: save one "
                    "column per class, in the order of the class numbers"
                )
    return outputs, arrays.get("member")
