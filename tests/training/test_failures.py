"""An error while a model is trained or queried is the failure of that model, or ends the worker."""

import pytest
import torch
import torch.nn.functional as F

from lira.errors import DeviceError, InputError, ModelError
from lira.training import failures
from lira.training.failures import as_model_error

CPU = torch.device("cpu")


def failure(error: BaseException) -> ModelError:
    with pytest.raises(ModelError) as caught, as_model_error("shadow_03", CPU, memory_flag="--train-batch-size"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"), "CUDA out of memory"),
        (
            RuntimeError("[enforce fail …] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to …"),
            "can't allocate memory: you tried to …",
        ),
        (MemoryError(), "no memory left"),
    ],
)
def test_out_of_memory_names_the_flag_to_lower(error, reason):
    assert str(failure(error)) == (
        f"shadow_03: out of memory ({reason}); lower --train-batch-size or start fewer workers per device"
    )
    assert not failure(error).traceback


def test_any_error_names_the_line_of_the_network_and_keeps_its_traceback():
    with pytest.raises(ModelError) as caught, as_model_error("target_00", CPU, memory_flag=""):
        F.linear(torch.zeros(2, 3), torch.zeros(4, 5))
    line = test_any_error_names_the_line_of_the_network_and_keeps_its_traceback.__code__.co_firstlineno + 2
    assert str(caught.value).startswith("target_00: RuntimeError: ")
    assert str(caught.value).endswith(f" (test_failures.py, line {line})")
    assert "F.linear(torch.zeros(2, 3)" in caught.value.traceback
    assert str(failure(ModelError("the loss is nan"))) == "shadow_03: the loss is nan"
    assert str(failure(SystemExit(0))).startswith("shadow_03: SystemExit: 0 (")


@pytest.mark.parametrize("error", [InputError("the disk is full"), KeyboardInterrupt()])
def test_what_stops_all_models_is_passed_on(error):
    with pytest.raises(type(error)) as caught, as_model_error("shadow_03", CPU, memory_flag=""):
        raise error
    assert caught.value is error


def test_a_device_that_does_not_respond_is_told_from_a_full_one(monkeypatch):
    for error, kind in ((RuntimeError("CUDA error"), DeviceError), (torch.OutOfMemoryError(), ModelError)):

        def zeros(*shape, device, error=error):
            raise error

        monkeypatch.setattr(failures.torch, "zeros", zeros)
        assert type(failure(KeyError("a"))) is kind
