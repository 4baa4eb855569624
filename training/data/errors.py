"""What can be wrong with training data; each message names the place and the mend."""

from __future__ import annotations


class DataError(Exception):
    """A table, a study or a cache cannot be used."""
