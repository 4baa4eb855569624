"""A checkpoint is read without running it: what is no model is refused, whatever it tries."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import prima
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.errors import WeightsError
from inference.prima import torch_archive
from inference.prima.pickle_names import allowed
from inference.prima.safe_pickle import Inert, read_object
from inference.prima.torch_archive import Archive, TensorRef

STORAGE = b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"


def archive(path: Path, pickled: bytes, storage: bytes = bytes(16), **extra: bytes) -> Path:
    """A file of torch.save's layout around any pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", pickled)
        file.writestr("m/data/0", storage)
        for name, content in extra.items():
            file.writestr(f"m/{name}", content)
    return path


def read(path: Path) -> Any:
    """What the reader makes of a file."""
    with Archive(path) as opened:
        return read_object(opened)


class Call:
    """An object whose pickle calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.found = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.found


class Stateful:
    """An object whose pickle hands a state to another's __setstate__."""

    def __reduce__(self) -> tuple[Any, ...]:
        return collections.OrderedDict, (), {"__class__": "x"}, None, iter([("k", Call(os.getcwd))])


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (Call(os.system, "touch MARKER"), "posix.system"),
        (Call(eval, "open('MARKER', 'w')"), "__builtin__.eval"),
        (Call(exec, "open('MARKER', 'w')"), "__builtin__.exec"),
        (Call(Call, Call(os.system, "touch MARKER")), "Call"),
        (Stateful(), "posix.getcwd"),
        ({"weight": [(Call(os.remove, "x"),)]}, "posix.remove"),
        (Call(torch.load, "x"), "torch.serialization.load"),
        (torch.nn.functional.relu, "torch.nn.functional.relu"),
        (torch.nn.Conv2d, "torch.nn.modules.conv.Conv2d"),
    ],
)
def test_a_pickle_that_asks_for_more_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Any, named: str
):
    """Nothing runs, and the error says what the file wanted."""
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "evil.pt", pickle.dumps(attack, protocol=2))
    with pytest.raises(WeightsError, match="asks for") as caught:
        read(path)
    assert named in str(caught.value)
    assert not (tmp_path / "MARKER").exists()


SYSTEM = b"cposix\nsystem\n"


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"(S'touch MARKER'\niposix\nsystem\n.", "uses STRING"),
        (b"(X\x01\x00\x00\x00xiposix\nsystem\n.", "uses INST"),
        (b"(" + SYSTEM + b"X\x01\x00\x00\x00xo.", "posix.system"),
        (b"(ctorch.nn.modules.linear\nLinear\no.", "uses OBJ"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "uses SHORT_BINUNICODE"),
        (b"\x80\x04X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93.", "uses STACK_GLOBAL"),
        (b"\x82\x01.", "uses EXT1"),
        (b"Vx\n.", "uses UNICODE"),
        (b"Px\n.", "uses PERSID"),
        (b"]2.", "uses DUP"),
        (b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00x.", "uses BYTEARRAY8"),
        (b"ccollections\nOrderedDict\n)\x81.", "no known class"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n}b.", "what is no module"),
        (b"ctorch.nn.modules.linear\nLinear\n}b.", "what is no module"),
        (b"ctorch.nn.modules.linear\nLinear\n)R.", "calls 'torch.nn.modules.linear.Linear'"),
        (b"ctorch.nn.modules.linear\nLinear\n)\x81)R.", "no known name"),
        (b"ctorch.nn.modules.linear\nLinear\n)\x81}K\x01K\x02sb.", "without a name"),
        (b"]Q.", "damaged"),
        (b"(X\x01\x00\x00\x00x" * 5 + b"tQ.", "names storages|damaged"),
        (b"h\x05.", "damaged"),
        (b"0.", "uses POP"),
        (b"(.", "damaged|ends"),
        (b"}", "ends too early|damaged"),
        (b"}]]s.", "damaged"),
        (b"\x8a\xff" + b"\x7f" * 255 + b".", "damaged"),
    ],
)
def test_opcodes_that_model_files_do_not_use_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: bytes, message: str
):
    """Every way to name, make or change an object but the few of torch.save is closed."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=message):
        read(archive(tmp_path / "evil.pt", pickled))
    assert not (tmp_path / "MARKER").exists()


def test_an_object_that_contains_itself_ends_in_our_error(tmp_path: Path):
    """Memo tricks make cycles; whoever walks them stops."""
    from inference.prima import module_tree

    module = b"ctorch.nn.modules.container\nSequential\n)\x81q\x00"
    cycle = module + b"}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x000h\x00ssb."
    with Archive(archive(tmp_path / "cycle.pt", cycle)) as opened:
        root = read_object(opened)
        assert isinstance(root, Inert)
        with pytest.raises(WeightsError, match="contain each other"):
            module_tree.tensors(root, opened)


def tensor_pickle(
    offset: int, shape: tuple[int, ...], stride: tuple[int, ...], count: int
) -> bytes:
    """A pickle of one tensor with any geometry."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + STORAGE + number(count) + b"tQ"
    view = number(offset) + numbers(shape) + numbers(stride)
    rest = b"\x89ccollections\nOrderedDict\n)R"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + rest + b"tR."


def test_a_tensor_is_read_in_its_own_geometry(tmp_path: Path):
    """Transposed and shifted views come out as they were."""
    numbers = struct.pack("<6f", *range(6))
    path = archive(tmp_path / "t.pt", tensor_pickle(0, (2, 3), (1, 2), 6), numbers)
    with Archive(path) as opened:
        ref = read_object(opened)
        assert isinstance(ref, TensorRef)
        assert opened.tensor(ref).tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "count"),
    [
        (0, (1 << 40,), (0,), 4),  # one number repeated for a terabyte
        (3, (2,), (1,), 4),
        (0, (2, 2), (1, 3), 4),
        (0, (2,), (-1,), 4),
        (-1, (1,), (1,), 4),
        (0, (1,) * 9, (1,) * 9, 4),
        (0, (2, 2), (1,), 4),
        (0, (5,), (1,), 5),  # more than the record holds
        (0, (1 << 61,), (1,), 1 << 61),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], count: int
):
    """No forged geometry reads elsewhere or asks for memory the file does not have."""
    pickled = tensor_pickle(offset, shape, stride, count)
    with pytest.raises(WeightsError, match="storage"):
        read(archive(tmp_path / "t.pt", pickled))


def test_a_zip_that_is_no_torch_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Bombs, doubles, strange folders, big-endian numbers and plain garbage."""
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("m/data.pkl", bytes(1 << 20))
    with pytest.raises(WeightsError, match=r"claim more|packed"):
        Archive(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"N.")
        file.writestr("b/version", b"3")
    with pytest.raises(WeightsError, match="one folder"):
        Archive(path)
    with pytest.raises(WeightsError, match="big-endian"):
        Archive(archive(tmp_path / "big.pt", b"N.", byteorder=b"big"))
    path.write_bytes(b"\x80\x02N.")
    with pytest.raises(WeightsError, match="zip layout"):
        Archive(path)
    with pytest.raises(WeightsError, match="no such file"):
        Archive(tmp_path / "absent.pt")
    monkeypatch.setattr(torch_archive, "MAX_PICKLE_BYTES", 1)
    with pytest.raises(WeightsError, match="below 64 MiB"):
        read(archive(tmp_path / "long.pt", b"]."))


def test_records_are_not_read_without_end(tmp_path: Path):
    """Tensors may share a record, but not to make a small file fill the memory."""
    path = archive(tmp_path / "t.pt", tensor_pickle(0, (1000,), (1,), 1000), bytes(4000))
    with Archive(path) as opened:
        ref = read_object(opened)
        for _ in range(torch_archive.REREAD):
            opened.tensor(ref)
        with pytest.raises(WeightsError, match="endlessly"):
            collections.deque((opened.tensor(ref) for _ in range(99)), maxlen=0)


@pytest.mark.parametrize(
    "name",
    [
        "transformers.models.gpt2.modeling_gpt2.GPT2SdpaAttention",
        "transformers.generation.configuration_utils.GenerationConfig",
        "Prima_training_and_evaluation.model_parts.HierViT",
        "torch.float16",
        "tools.models.FullMRIModel",
    ],
)
def test_known_names_are_tolerated(name: str):
    """Every layout the authors published, and what the text side may bring along."""
    assert allowed(name)


@pytest.mark.parametrize(
    "name",
    ["builtins.eval", "os.system", "model.system", "tools.models.os", "torch.load", "transformers",
     "model_parts.x.ViT", "transformers.a.b.c()", "torch._utils._rebuild_tensor", "x.FullMRIModel"],
)  # fmt: skip
def test_other_names_are_not(name: str):
    """A known class name in an unknown module is as foreign as the reverse."""
    assert not allowed(name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small head as torch.save writes it."""
    file = io.BytesIO()
    torch.save(prima.head(1), file)
    return file.getvalue()


@settings(max_examples=150, deadline=5000, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_flipped_bytes_end_in_our_error_or_a_model(
    checkpoint: bytes, tmp_path: Path, data: st.DataObject
):
    """Damage anywhere in the pickle, and nothing but WeightsError comes out of it."""
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as source:
        names = {n.partition("/")[2]: source.read(n) for n in source.namelist()}
    pickled = bytearray(names["data.pkl"])
    places = st.tuples(st.integers(0, len(pickled) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, min_size=1, max_size=6)):
        pickled[place] = value
    path = tmp_path / "fuzzed.pt"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {**names, "data.pkl": bytes(pickled)}.items():
            file.writestr(f"m/{name}", content)
    try:
        with Archive(path) as opened:
            found = read_object(opened)
            if isinstance(found, TensorRef):
                opened.tensor(found)
    except WeightsError:
        return


@settings(max_examples=60, deadline=5000, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, 2000), place=st.integers(0, 1 << 20), value=st.integers(0, 255))
def test_a_damaged_file_ends_in_our_error_or_a_model(
    checkpoint: bytes, tmp_path: Path, cut: int, place: int, value: int
):
    """The zip's own structures may be damaged too, or the file cut off."""
    raw = bytearray(checkpoint[: len(checkpoint) - cut])
    raw[place % len(raw)] = value
    path = tmp_path / "damaged.pt"
    path.write_bytes(raw)
    try:
        read(path)
    except WeightsError:
        return
