"""The switches of torch while a model trains, and where --compile cannot work."""

import pytest
import torch

import train_model
from lira.training.kernels import fast_kernels
from tests.helpers.scripts import FLAGS, rejected, run_folders

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def switches():
    cudnn = torch.backends.cudnn
    return cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize(
    ("device", "precision", "inside"),
    [
        (CUDA, "bf16", (True, True, True, "high")),
        (CUDA, "fp32", (True, True, False, "highest")),  # fp32 is fp32: no TF32, in convolutions neither
        (CPU, "bf16", (True, True, True, "highest")),
    ],
)
def test_switches_hold_while_training_and_no_longer(device, precision, inside):
    before = switches()
    with fast_kernels(device, precision, same_sizes=True):
        assert switches() == inside
    with fast_kernels(device, precision, same_sizes=False):
        assert switches() == (True, False, *inside[2:])
    assert switches() == before
    with pytest.raises(KeyError), fast_kernels(device, precision, same_sizes=True):
        raise KeyError
    assert switches() == before


def test_a_model_trains_and_is_tested_under_them(tmp_path, monkeypatch):
    seen = set()

    class Looks(torch.nn.Linear):
        def forward(self, x):
            seen.add((self.training, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32))
            return super().forward(x.flatten(1))

    monkeypatch.setattr("scripts.looks", lambda num_classes, in_channels: Looks(784, num_classes), raising=False)
    flags = [*FLAGS, *run_folders(tmp_path), "--network", "tests.helpers.networks:looks", "--epochs", "1"]
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    assert train_model.main(flags) == 0
    assert seen == {(mode, *switch) for mode in (True, False) for switch in (before, (True, False))}  # built, trained


def test_a_compiler_that_fails_is_one_line(tmp_path, monkeypatch):
    failure = type("BackendCompilerFailed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})

    def compile_in_place(self, **how):
        def fail(*args):
            raise failure("no compiler\nand a long story")

        self._compiled_call_impl = fail

    monkeypatch.setattr(torch.nn.Module, "compile", compile_in_place)
    said = rejected(train_model.main, [*FLAGS, *run_folders(tmp_path), "--compile", "--quiet"])
    assert "--compile: torch.compile does not work here (BackendCompilerFailed: no compiler); leave it out" in said


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="mine"), fast_kernels(CPU, "fp32", same_sizes=True):
        raise RuntimeError("mine")
