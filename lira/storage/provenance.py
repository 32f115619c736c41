"""How and where something was computed: recorded in config.json and attack.json, never compared."""

import platform
import shlex
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any


def provenance(script: str, argv: Sequence[str]) -> dict[str, Any]:
    """The call as a line for the shell, the time, and the versions of what figures may depend on."""
    packages = ("torch", "numpy", "scipy", "scikit-learn")
    versions = {"python": platform.python_version()} | {package: metadata.version(package) for package in packages}
    return {"command": shlex.join(["python", script, *argv]), "started": timestamp(), "versions": versions}


def timestamp() -> str:
    """Local time now with its offset from UTC, in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
