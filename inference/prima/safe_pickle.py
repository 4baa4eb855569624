"""Reads a pickled module tree without importing or calling anything that the pickle names.

A published checkpoint is a whole module saved by torch.save, and unpickling one runs whatever it
asks for. Here the pickle's opcodes are interpreted by a small machine of our own: names become
inert records, calls become values only for the four functions that rebuild tensors and containers,
and an opcode or a name that model files do not use ends the reading with the name of it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inference.errors import WeightsError
from inference.prima import pickle_names
from inference.prima.torch_archive import Archive, StorageRef, TensorRef

MAX_OPCODES = 5_000_000
MAX_INTEGER = 1 << 62
MAX_KEY = 1 << 31
"""Larger whole numbers are no keys of a model's tables, and could be chosen to collide."""


@dataclass(frozen=True)
class Name:
    """A global that the pickle mentions; it is never looked up."""

    path: str

    @property
    def short(self) -> str:
        """The class name alone."""
        return self.path.rpartition(".")[2]


@dataclass(eq=False)
class Inert:
    """An object of the pickle: what it says its class is, and its attributes."""

    kind: Name
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Collected:
    """A set of the pickle; its members are not hashed."""

    items: list[Any] = field(default_factory=list)


class _Mark:
    pass


def read_object(archive: Archive) -> Any:
    """The object that an archive's pickle describes, made of inert values.

    Raises:
        WeightsError: the pickle is damaged, or asks for anything that a model file has no use for.
    """
    return _Machine(archive).run(archive.pickle_bytes())


class _Machine:
    """A stack, a memo and the opcodes of protocol 2 that torch.save writes."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._copied = 0

    def run(self, raw: bytes) -> Any:
        try:
            for count, (opcode, arg, _) in enumerate(pickletools.genops(raw)):
                if count > MAX_OPCODES:
                    raise self._wrong("its pickle is longer than any model's")
                if opcode.name == "STOP":
                    return self._result()
                self._step(opcode.name, arg)
        except WeightsError:
            raise
        except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
            raise self._wrong("its pickle is damaged; fetch the file again") from error
        raise self._wrong("its pickle ends too early; fetch the file again")

    def _step(self, name: str, arg: Any) -> None:
        if name in _LITERALS:
            self.push(self._literal(arg))
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name]())
        elif (act := _ACTIONS.get(name)) is not None:
            act(self, arg)
        elif name not in _IGNORED:
            raise self._wrong(f"its pickle uses {name}, which model files do not; it is not read")

    def _result(self) -> Any:
        result = self.pop()
        if self._stack:
            raise ValueError("more than one object")
        return result

    def _wrong(self, problem: str) -> WeightsError:
        return self._archive.wrong(problem)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def top(self) -> Any:
        value = self._stack[-1]
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def since_mark(self) -> list[Any]:
        items: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _literal(self, value: Any) -> Any:
        if isinstance(value, int) and not -MAX_INTEGER < value < MAX_INTEGER:
            raise ValueError("a whole number of more than 62 bits")
        return value

    def mention(self, arg: str) -> None:
        path = ".".join(arg.split(" "))
        if not pickle_names.allowed(path):
            raise self._wrong(
                f"its pickle asks for {path[:80]!r}, which no Prima checkpoint needs; it is refused"
            )
        self.push(Name(path))

    def tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(items[::-1]))

    def put(self, place: int) -> None:
        self.memo[place] = self.top()

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise ValueError("items for what is no list")
        target += items

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise ValueError("entries for what is no table")
        for key, value in zip(items[::2], items[1::2], strict=True):
            known = type(key) in (str, bool, type(None)) or (
                type(key) is int and -1 <= key < MAX_KEY
            )
            if not known:
                raise ValueError("a key of a kind that model files do not use")
            target[key] = value

    def storage(self) -> None:
        kind, storage, key, _, elements = self.pop()
        named = isinstance(storage, Name) and storage.path in pickle_names.STORAGE_NAMES
        if kind != "storage" or not named:
            raise self._wrong("its pickle names storages in no way that torch.save does")
        self.push(self._archive.storage(storage.short, key, elements))

    def reduce(self) -> None:
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, Name) or type(arguments) is not tuple:
            raise self._wrong("its pickle calls something that is no known name; it is refused")
        if called.path == pickle_names.REBUILD_TENSOR:
            self.push(_tensor(*arguments[:4]))
        elif called.path == pickle_names.REBUILD_PARAMETER:
            self.push(_parameter(arguments[0]))
        elif called.path == pickle_names.ORDERED and not arguments:
            self.push({})
        elif called.path in pickle_names.SETS and [type(a) for a in arguments] == [list]:
            self.push(Collected(arguments[0]))
        elif called.path in pickle_names.TORCH_VALUES or pickle_names.of_text_tower(called.path):
            self.push(Inert(called, {"arguments": arguments}))
        else:
            raise self._wrong(f"its pickle calls {called.path!r}; only tensors are rebuilt")

    def new(self) -> None:
        arguments, kind = self.pop(), self.pop()
        if not isinstance(kind, Name) or kind.path in pickle_names.CALLED or arguments != ():
            raise self._wrong("its pickle makes an object of no known class; it is refused")
        self.push(Inert(kind))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if type(target) is dict and type(state) is dict:
            return  # an OrderedDict's own attributes, such as a state_dict's version numbers
        if type(target) is not Inert or type(state) is not dict:
            raise self._wrong("its pickle sets attributes of what is no module; it is refused")
        self._copied += len(state)
        if self._copied > MAX_OPCODES:
            raise self._wrong("its pickle is longer than any model's")
        if not all(type(key) is str for key in state):
            raise self._wrong("its pickle sets attributes without a name; it is refused")
        target.state.update(state)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> TensorRef:
    if not isinstance(storage, StorageRef) or type(shape) is not tuple or type(stride) is not tuple:
        raise ValueError("a tensor without storage, shape or stride")
    return TensorRef(storage, offset, shape, stride).check()


def _parameter(data: Any) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise TypeError("a parameter that is no tensor")
    return data


_MARK = _Mark()
_LITERALS = frozenset(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"])
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "MARK": lambda: _MARK,
}
_IGNORED = frozenset(["PROTO"])
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": lambda m, arg: m.mention(arg),
    "BINPERSID": lambda m, _: m.storage(),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new(),
    "BUILD": lambda m, _: m.build(),
    "TUPLE1": lambda m, _: m.tuple(1),
    "TUPLE2": lambda m, _: m.tuple(2),
    "TUPLE3": lambda m, _: m.tuple(3),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.since_mark()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "BINPUT": lambda m, arg: m.put(arg),
    "LONG_BINPUT": lambda m, arg: m.put(arg),
    "BINGET": lambda m, arg: m.push(m.memo[arg]),
    "LONG_BINGET": lambda m, arg: m.push(m.memo[arg]),
}
