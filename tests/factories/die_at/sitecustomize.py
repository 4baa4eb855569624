"""Arms one function of a subprocess under test: SIGKILL before its body, or after it returned.

Python imports this by itself when the directory is on PYTHONPATH. ``DIE_AT`` is
``module:qualified.name:before|after:call``; without it nothing happens.
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


if "DIE_AT" in os.environ:
    _module, _name, _when, _call = os.environ["DIE_AT"].split(":")
    sys.meta_path.insert(0, _Finder(_module, _name, _when, int(_call)))
