"""What an error while one model is trained or queried means: for this model, and for the worker."""

import contextlib
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from lira.errors import DeviceError, InputError, ModelError, one_line, out_of_memory


@contextlib.contextmanager
def as_model_error(name: str, device: torch.device, *, memory_flag: str) -> Iterator[None]:
    """Any error inside becomes a ModelError "name: reason", DeviceError if the device does not respond after it.
    InputErrors stay what they are: a full disk stops all models. memory_flag: lowers the need of memory."""
    try:
        yield
        return
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit() in a network must not end all models with status 0
        text, final = "", isinstance(error, ModelError) and error.final
        if reason := out_of_memory(error):
            reason = f"out of memory ({reason}); lower {memory_flag} or start fewer workers per device"
        elif isinstance(error, ModelError):
            reason = str(error)
        else:
            reason, text = f"{one_line(error)}{_place(error)}", "".join(traceback.format_exception(error))
    # Outside of the block: the error and the tensors in its frames are freed by now.
    if not _responds(device):
        raise DeviceError(f"{name}: {reason}; {device} does not respond any more", traceback=text)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise ModelError(f"{name}: {reason}", final=final, traceback=text)


def _place(error: BaseException) -> str:
    """File and line of the last call that is not in an installed package: in the user's network, if it was there."""
    installed = [Path(folder) for folder in map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and not any(path.is_relative_to(folder) for folder in installed):
            return f" ({path.name}, line {frame.lineno})"
    return ""


def _responds(device: torch.device) -> bool:
    """Whether the device still computes. After an assertion in a CUDA kernel nothing does in this process."""
    try:
        torch.zeros(1, device=device).item()
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True
