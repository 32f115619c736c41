"""What a resume file holds: all that the rest of a training depends on."""

from collections.abc import Mapping
from typing import Any

import torch

from lira.errors import ModelError, one_line


class TrainingState:
    """The state of one model in training, to be saved and continued bit-identically.

    parts: name in the resume file -> object with state_dict() and load_state_dict(); history: one row per epoch, to be
    extended in place; generator: the model's own. torch's global generators belong to the state as well."""

    def __init__(self, parts: Mapping[str, Any], history: list, generator: torch.Generator, device: torch.device):
        self._parts, self._history, self._generator, self._device = parts, history, generator, device

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {name: dict(part.state_dict()) for name, part in self._parts.items()}
        state |= {
            "history": list(self._history),
            "generator": self._generator.get_state(),
            "torch": torch.get_rng_state(),
        }
        if self._device.type != "cpu":
            state[self._device.type] = getattr(torch, self._device.type).get_rng_state(*self._rng_arguments)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state_dict(). Raises ModelError if it does not fit: the network's code has changed."""
        try:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"its resume file does not fit the network, whose code has changed: {one_line(error)}; "
                "restore the code, or delete the file to train this model from the beginning"
            ) from error
        self._history[:] = state["history"]
        self._generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if self._device.type in state:
            getattr(torch, self._device.type).set_rng_state(state[self._device.type], *self._rng_arguments)

    @property
    def _rng_arguments(self) -> tuple[torch.device, ...]:
        return (self._device,) if self._device.type == "cuda" else ()  # torch.mps knows one device only
