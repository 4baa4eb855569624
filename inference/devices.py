"""Which device computes: the one asked for, else a GPU where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.errors import DeviceError, OutOfMemoryError

if TYPE_CHECKING:
    import torch


def choose(wanted: str = "auto") -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        DeviceError: a name torch does not know, or a GPU that is not there.
    """
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise DeviceError(
            f"device {wanted!r} is not known; use auto, cpu, cuda or cuda:N", permanent=True
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {wanted!r} asked for, but {torch.cuda.device_count()} GPUs are visible; "
            "check the driver or use auto"
        )
    return device


def describe(device: torch.device) -> str:
    """How results name the device, e.g. ``cpu`` or ``cuda:0 (NVIDIA A100)``."""
    import torch

    if device.type != "cuda":
        return device.type
    index = device.index if device.index is not None else torch.cuda.current_device()
    return f"cuda:{index} ({torch.cuda.get_device_name(index)})"


def release_memory(device: torch.device) -> None:
    """Give cached blocks back, so that a smaller attempt finds them."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: accelerators raise errors of their own, the CPU's allocator words."""
    import torch

    if isinstance(error, (OutOfMemoryError, MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_broken(error: Exception) -> bool:
    """Whether an error says that the device itself failed, so that no study can succeed on it."""
    import torch

    kinds = tuple(
        kind
        for name in ("AcceleratorError",)
        if isinstance(kind := getattr(torch, name, None), type)
    )
    return isinstance(error, kinds)
