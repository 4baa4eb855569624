"""What may be written down of an error."""

from __future__ import annotations

import pytest

from agent import faults
from agent.errors import AnalysisError
from db.states import IllegalMoveError
from dicom_nodes.errors import PeerUnavailable
from inference.errors import PackError

SECRET = "Doe^Jane"


@pytest.mark.parametrize("kind", [AnalysisError, PeerUnavailable, PackError, IllegalMoveError])
def test_own_words_pass(kind: type[Exception]) -> None:
    """Our messages are written without patient data, so they may be shown."""
    assert faults.describe(kind("the thing; the mend")) == "the thing; the mend"


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), KeyError(SECRET), OSError(2, SECRET, SECRET)]
)
def test_foreign_words_are_withheld_and_the_place_is_named(error: Exception) -> None:
    """Type and line tell a maintainer enough; the text may quote a header."""
    with pytest.raises(type(error)) as caught:
        raise error

    said = faults.describe(caught.value)

    assert SECRET not in said
    assert type(error).__name__ in said
    assert "agent/test_faults.py:" in said


def test_cause_of_our_error_is_not_quoted() -> None:
    """An error of ours that was raised from a library's keeps the library's words to itself."""
    error = AnalysisError("could not be read")
    error.__cause__ = ValueError(SECRET)

    assert faults.describe(error) == "could not be read"


def test_error_that_was_never_raised_has_no_place() -> None:
    """There is no traceback to name."""
    assert faults.describe(ValueError(SECRET)) == "ValueError"
