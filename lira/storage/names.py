"""Names of models, runs and their files."""

import re
from collections.abc import Mapping
from pathlib import Path

Job = tuple[str, int]  # (role, index): one model of a run
ROLES = ("target", "shadow")  # a role's position is its code in scores.npz and in every seed


def model_name(role: str, index: int) -> str:
    """The name of a model in messages, tables and file names: shadow_03."""
    return f"{role}_{index:02d}"


def weights_on_disk(models: Path) -> list[Job]:
    """The models with weights in a folder model/<run>/, targets first."""
    matches = [re.fullmatch(rf"({'|'.join(ROLES)})_(\d\d|[1-9]\d\d+)\.pt", path.name) for path in models.glob("*.pt")]
    jobs = [(match[1], int(match[2])) for match in matches if match]
    return sorted(jobs, key=lambda job: (ROLES.index(job[0]), job[1]))


def safe_name(text: str) -> str:
    """A file name for a dataset's path or a network: the last part of a path, without separators or leading dots."""
    last = re.split(r"[\\/]", str(text).rstrip("\\/"))[-1].removesuffix(".npz")
    return re.sub(r"([^\w.+-]|_)+", "-", last).strip(".-") or "unnamed"  # \w: letters and digits of any script


def run_name(identity: Mapping) -> str:
    """The folder of a run, from the settings that change its models."""
    parts = [safe_name(identity["dataset"]), safe_name(identity["network"]), identity["optimizer"]]
    parts += [f"lr{identity['lr']:g}", f"b{identity['batch_size']}", f"e{identity['epochs']}", identity["precision"]]
    if not identity["augment"]:
        parts.append("noaug")
    if "weight_decay" in identity:
        parts.append(f"wd{identity['weight_decay']:g}")
    if "lr_schedule" in identity:
        parts.append(identity["lr_schedule"])
    if not identity["n_train_is_default"]:
        parts.append(f"n{identity['n_train']}")
    if "max_grad_norm" in identity:
        epsilon = identity.get("target_epsilon")
        parts.append(f"eps{epsilon:g}" if epsilon else f"sigma{identity['sigma']:g}")
        parts.append(f"C{identity['max_grad_norm']:g}")
        parts += [f"noise{identity['noise_seed']}"] if "noise_seed" in identity else []
    return "_".join([*parts, f"exp{identity['exp_idx']}"])
