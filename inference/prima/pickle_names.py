"""The names that a pickled Prima checkpoint may mention, in all its published module layouts.

None of them is imported. Four are given a meaning (they rebuild tensors and containers); all others
only say what kind of record follows.
"""

from __future__ import annotations

import re

from inference.prima.torch_archive import STORAGES

_MODEL_MODULES = re.compile(
    r"(Prima_training_and_evaluation\.)?"
    r"(complete_visual_model|__main__|tools\.models|model|model_parts|patchify)"
)
_MODEL_CLASSES = frozenset(
    [
        "FullMRIModel",
        "CLIP",
        "HierViT",
        "ViT",
        "Transformer",
        "PreNorm",
        "Attention",
        "FeedForward",
        "GPTWrapper",
        "SerieTransformerEncoder",
        "RachelDatasetPatchifier",
        "MedicalImagePatchifier",
    ]
)
_TORCH_CLASSES = frozenset(
    f"torch.nn.{name}"
    for name in (
        "modules.activation.GELU",
        "modules.activation.ReLU",
        "modules.activation.Softmax",
        "modules.container.ModuleDict",
        "modules.container.ModuleList",
        "modules.container.Sequential",
        "modules.dropout.Dropout",
        "modules.linear.Identity",
        "modules.linear.Linear",
        "modules.loss.CrossEntropyLoss",
        "modules.normalization.LayerNorm",
        "modules.sparse.Embedding",
        "parallel.data_parallel.DataParallel",
        "parallel.distributed.DistributedDataParallel",
    )
)
TORCH_VALUES = frozenset(
    f"torch.{name}"
    for name in [
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "int64",
        "int32",
        "bool",
        "device",
        "Size",
    ]
)
_TEXT_TOWER = re.compile(r"transformers(\.[a-z0-9_]+)+\.[A-Za-z][A-Za-z0-9_]*")
"""Classes of the text side differ with the library's version; they only hold attributes here."""

REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
ORDERED = "collections.OrderedDict"
SETS = frozenset(["__builtin__.set", "builtins.set"])
STORAGE_NAMES = frozenset(f"torch.{name}" for name in STORAGES)
CALLED = frozenset([REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED, *SETS])


def allowed(path: str) -> bool:
    """Whether a model file may mention this global."""
    module, _, name = path.rpartition(".")
    return (
        path in CALLED
        or path in STORAGE_NAMES
        or path in _TORCH_CLASSES
        or path in TORCH_VALUES
        or (name in _MODEL_CLASSES and _MODEL_MODULES.fullmatch(module) is not None)
        or of_text_tower(path)
    )


def of_text_tower(path: str) -> bool:
    """Whether a global is a class of the text side."""
    return _TEXT_TOWER.fullmatch(path) is not None
