"""Settings of the recipes' worker processes."""

from __future__ import annotations

import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation
import torch


def one_thread() -> None:
    """One thread a worker: the studies are the parallelism."""
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # type: ignore[no-untyped-call]
