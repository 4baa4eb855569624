"""Which module makes which kind of result object; imported when first asked for.

A new kind is one file with ``compose(material, made) -> Iterator[ComposedObject]`` and one line
here. Kinds are composed in this order, so that the report can refer to the others.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence

from agent.errors import ComposeError
from agent.results import context as contexts
from agent.results.material import Material

Composer = Callable[
    [Material, Sequence[contexts.ComposedObject]], Iterable[contexts.ComposedObject]
]

COMPOSERS = {
    "seg": "agent.results.seg:compose",
    "pm": "agent.results.pm:compose",
    "sc": "agent.results.sc:compose",
    "sr": "agent.results.sr:compose",
}


def composer(kind: str) -> Composer:
    """The function that composes objects of `kind`.

    Raises:
        ComposeError: there is no such kind.
    """
    if kind not in COMPOSERS:
        raise ComposeError(
            f"unknown result kind {kind!r}; known kinds: {', '.join(sorted(COMPOSERS))}"
        )
    module, function = COMPOSERS[kind].split(":")
    found: Composer = getattr(importlib.import_module(module), function)
    return found
