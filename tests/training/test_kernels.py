"""torch's settings while a model trains, where --compile cannot work, a lack of memory, and glibc's malloc."""

import ctypes

import pytest
import torch

import train_model
from lira.training.kernels import fast_kernels, keep_freed_memory
from tests.helpers import networks
from tests.helpers.scripts import FLAGS, rejected, run_folders

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def current_settings():
    cudnn = torch.backends.cudnn
    return cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize(
    ("device", "precision", "inside"),
    [
        (CUDA, "bf16", (True, True, True, "high")),
        (CUDA, "fp32", (True, True, False, "highest")),  # no TF32, in convolutions neither
        (CPU, "bf16", (True, True, True, "highest")),
    ],
)
def test_settings_are_restored_after_training_and_after_an_error(device, precision, inside):
    before = current_settings()
    with fast_kernels(device, precision, same_sizes=True):
        assert current_settings() == inside
    with fast_kernels(device, precision, same_sizes=False):
        assert current_settings() == (True, False, *inside[2:])
    assert current_settings() == before
    with pytest.raises(RuntimeError, match="mine"), fast_kernels(device, precision, same_sizes=True):
        raise RuntimeError("mine")
    assert current_settings() == before


def test_a_model_is_trained_and_evaluated_with_these_settings(tmp_path, monkeypatch):
    seen = set()

    class Spy(torch.nn.Linear):
        def forward(self, x):
            seen.add((self.training, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32))
            return super().forward(x.flatten(1))

    monkeypatch.setattr(networks, "spy", lambda num_classes, in_channels: Spy(784, num_classes), raising=False)
    flags = [*FLAGS, *run_folders(tmp_path), "--network", "tests.helpers.networks:spy", "--epochs", "1"]
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    assert train_model.main(flags) == 0
    # before: when the network is checked; the last: the logits that its weights file records
    trained = {(mode, *settings) for mode in (True, False) for settings in (before, (True, False))}
    assert seen == trained | {(False, False, False)}


def test_a_failing_compiler_is_reported_in_one_line(tmp_path, monkeypatch):
    failure = type("BackendCompilerFailed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})

    def compile_in_place(self, **settings):
        def fail(*args):
            raise failure("no compiler\nand a long story")

        self._compiled_call_impl = fail

    monkeypatch.setattr(torch.nn.Module, "compile", compile_in_place)
    line = rejected(train_model.main, [*FLAGS, *run_folders(tmp_path), "--compile", "--quiet"])
    assert "--compile: torch.compile does not work here (BackendCompilerFailed: no compiler); leave it out" in line


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("no such library"), AttributeError("mallopt")])
def test_without_glibc_nothing_is_set(monkeypatch, error):
    def missing(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    keep_freed_memory()


def test_glibc_gets_three_settings(monkeypatch):
    """By the numbers of malloc.h: M_MMAP_MAX 0, M_TRIM_THRESHOLD off, M_TOP_PAD 64 MiB."""
    calls = {}

    class Library:
        @staticmethod
        def mallopt(key, value):
            calls[key] = value

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    keep_freed_memory()
    assert calls == {-4: 0, -1: -1, -2: 64 * 1024 * 1024}


def test_large_tensors_are_correct_afterwards():
    keep_freed_memory()
    for _ in range(3):
        assert torch.ones(4_000_000).sum().item() == 4_000_000
