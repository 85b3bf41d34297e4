"""The README's three commands, from an empty folder to a first answer."""

from pathlib import Path

import pytest

from tests.packaging.building import Built
from tests.packaging.three_commands import lead_to_an_answer


@pytest.mark.timeout(600)
def test_three_commands_lead_to_an_answer(built: dict[str, Built], tmp_path: Path) -> None:
    """Install, init and uvicorn, as the README has them, are a service with a database."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for files in built.values():
        (wheels / files.wheel.name).hardlink_to(files.wheel)
    # uv in the place of pip; benchmarks/first_answer.py takes the time with pip.
    answered = lead_to_an_answer(tmp_path, wheels)
    assert "migrations are applied: yes" in answered.init_output
    assert answered.books == []
