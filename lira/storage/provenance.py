"""How and where something was computed: recorded in config.json and attack.json, never compared."""

import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from importlib import metadata

import torch


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures of an attack may depend on."""
    packages = ("torch", "numpy", "scipy", "scikit-learn")
    return {"python": platform.python_version()} | {package: metadata.version(package) for package in packages}


def timestamp() -> str:
    """Local time now with its offset from UTC, in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def command(script: str, argv: Sequence[str]) -> str:
    """A call of a script as a line for the shell."""
    return shlex.join(["python", script, *argv])


def training_provenance(argv: Sequence[str], *, device_name: str, privacy: Mapping | None = None) -> dict:
    """What config.json records. argv: the flags of train_model.py; privacy: what DP training records, None without."""
    return {
        "command": command("train_model.py", argv),
        "started": timestamp(),
        "device": device_name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **({"privacy": privacy} if privacy else {}),
    }
