"""What several tests of the scaffold share."""

import pytest


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the verification at the end of `moorage init`, which starts three programs."""

    def verify(*arguments: object) -> list[object]:
        return []

    monkeypatch.setattr("moorage.cli.init.verify", verify)
