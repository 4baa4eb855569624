"""The errors of the models' package, one tree.

Every message names the thing, the cause and the mend. `permanent` says whether trying the same
input again can help: the caller's retry decides by it.
"""

from __future__ import annotations


class InferenceError(Exception):
    """Anything that keeps the models from answering."""

    permanent: bool = True

    def __init__(self, message: str, *, permanent: bool | None = None) -> None:
        super().__init__(message)
        if permanent is not None:
            self.permanent = permanent


class PackError(InferenceError):
    """A model pack is incomplete, altered or not understood."""


class WeightsError(PackError):
    """A weights file does not fit the model that its configuration describes."""


class ConfigError(PackError):
    """A model configuration holds a key or value that the model does not know."""


class VolumeError(InferenceError):
    """A series cannot become a volume the model can read."""


class InputError(InferenceError, ValueError):
    """Tokens, coordinates or boundaries that contradict each other were handed to a model."""


class NoVolumeError(VolumeError, ValueError):
    """Nothing of a study could be read (a ValueError, as in the official interface)."""


class OutOfMemoryError(InferenceError):
    """A study does not fit the device's memory, even split into its smallest batches."""


class DeviceError(InferenceError):
    """The device failed for a reason that may pass (driver, other process)."""

    permanent = False


class NotAvailableError(InferenceError, NotImplementedError):
    """A part of the official interface that has its place here but is not built in yet."""
