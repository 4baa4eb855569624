"""What tests put inside the agent's process; Python imports it when it lies on PYTHONPATH.

``DIE_AT=module:qualified.name:before|after:call`` arms one function: SIGKILL before its body, or
after it returned. ``CONNECT_LOG=FILE`` writes down every address that anything connects to or
looks up, here and in child processes. Without them nothing happens.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import signal
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Armed(importlib.abc.Loader):
    """Loads the module as usual, then puts the trap around its function."""

    def __init__(self, loader: Any, name: str, when: str, call: int) -> None:
        self._loader, self._name, self._when, self._call = loader, name, when, call
        self._calls = 0
        self._lock = threading.Lock()

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        *path, last = self._name.split(".")
        holder: Any = module
        for part in path:
            holder = getattr(holder, part)
        setattr(holder, last, self._trapped(getattr(holder, last)))

    def _trapped(self, function: Any) -> Any:
        @functools.wraps(function)
        def trapped(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self._calls += 1
                due = self._calls == self._call
            if due and self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return trapped


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module and arms it."""

    def __init__(self, module: str, name: str, when: str, call: int) -> None:
        self._module, self._trap = module, (name, when, call)

    def find_spec(self, fullname: str, _path: Any, _target: Any = None) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            spec.loader = _Armed(spec.loader, *self._trap)
        return spec


def _write_down(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        line = f"connect {arguments[1][0]} {arguments[1][1]}\n"
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        line = f"lookup {arguments[0]}\n"
    else:
        return
    descriptor = os.open(os.environ["CONNECT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


if "CONNECT_LOG" in os.environ:
    sys.addaudithook(_write_down)

if "DIE_AT" in os.environ:
    _module, _name, _when, _call = os.environ["DIE_AT"].split(":")
    sys.meta_path.insert(0, _Finder(_module, _name, _when, int(_call)))
