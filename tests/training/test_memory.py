"""The hint to the system's malloc: harmless everywhere."""

import ctypes

import pytest
import torch

from lira.training.kernels import keep_freed_memory


@pytest.mark.parametrize("error", [OSError("no such library"), AttributeError("mallopt")])
def test_other_systems_are_left_alone(monkeypatch, error):
    def missing(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    keep_freed_memory()


def test_glibc_gets_the_three_settings(monkeypatch):
    """By the numbers of malloc.h: M_MMAP_MAX 0, M_TRIM_THRESHOLD off, and room on top."""
    calls = {}

    class Library:
        @staticmethod
        def mallopt(key, value):
            calls[key] = value

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    keep_freed_memory()
    assert calls == {-4: 0, -1: -1, -2: 64 * 1024 * 1024}


def test_large_tensors_are_still_right_afterwards():
    keep_freed_memory()
    for _ in range(3):
        assert torch.ones(4_000_000).sum().item() == 4_000_000
