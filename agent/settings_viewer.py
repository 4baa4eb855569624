"""Where a study is opened for reading: addresses of viewers, with places for its identifiers."""

from __future__ import annotations

import string
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator

FIELDS = ("study_uid", "accession")
FORBIDDEN_SCHEMES = frozenset({"", "javascript", "data", "vbscript", "blob", "file"})


def checked(template: str) -> str:
    """The template, if nothing but our identifiers can get into it.

    Raises:
        ValueError: an unknown place, no place at all, or an address a page must not lead to.
    """
    if not template:
        return template
    named = [name for _, name, spec, conversion in string.Formatter().parse(template) if name]
    plain = all(
        not spec and not conversion
        for _, name, spec, conversion in string.Formatter().parse(template)
        if name is not None
    )
    if not named or not plain or any(name not in FIELDS for name in named):
        raise ValueError("a viewer address holds {study_uid} or {accession}, and nothing else")
    if urlsplit(template).scheme.lower() in FORBIDDEN_SCHEMES or template.startswith("{"):
        raise ValueError("a viewer address begins with https:// (or your viewer's own scheme)")
    return template


ViewerAddress = Annotated[str, AfterValidator(checked)]


def fill(template: str, study_uid: str, accession: str) -> str:
    """The address of one study, its identifiers percent-encoded; empty when it cannot be named."""
    if not template or ("{accession}" in template and not accession):
        return ""
    return template.format(study_uid=quote(study_uid, safe=""), accession=quote(accession, safe=""))
