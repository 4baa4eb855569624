"""What may be written down of an error: our own words, or only the type and place of a foreign one.

A library's message may quote the dataset it choked on; that text never reaches a log, a row or a
page.
"""

from __future__ import annotations

import traceback

OUR_PACKAGES = frozenset({"agent", "dicom_nodes", "inference", "db", "training"})


def describe(error: BaseException) -> str:
    """The error in words that hold no patient data."""
    if type(error).__module__.split(".")[0] in OUR_PACKAGES:
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = ""
    if frames:
        last = frames[-1]
        place = f" at {'/'.join(last.filename.split('/')[-2:])}:{last.lineno}"
    return f"{type(error).__name__}{place}"
