"""What is remembered of a transaction."""

import pytest

from moorage.notes import Notes


@pytest.mark.parametrize(
    ("took", "idle", "has_idled"),
    [
        (0.0, 10.0, True),
        (0.0, 9.99, False),
        (0.05, 9.99, True),  # the server may have answered sooner than that was heard
        (0.05, 9.9, False),
        (30.0, 8.0, False),  # it was running, and not idle
    ],
)
def test_the_server_counts_from_its_answer(took: float, idle: float, has_idled: bool) -> None:
    """A transaction has idled if the server may have counted the limit since it answered."""
    notes = Notes()
    notes.asked_at, notes.answered_at = 100.0, 100.0 + took
    assert notes.has_idled(10.0, 100.0 + took + idle) is has_idled


def test_who_was_never_answered_has_not_idled() -> None:
    """Before the first answer there is nothing to count from."""
    assert not Notes().has_idled(0.5, 100.0)
