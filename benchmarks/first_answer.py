"""
How long it takes from nothing to a service that answers: the three commands of the README.

pip installs into a new environment, with our wheels in the place of the registry's; everything else
comes from the registry, or from the caches of pip and of uv, which is shown beside it.
"""

import platform
import shutil
import tempfile
from pathlib import Path

from tests.packaging.building import ROOT, build
from tests.packaging.three_commands import Answered, lead_to_an_answer

AIM_SECONDS = 60


def build_wheels(folder: Path) -> Path:
    """Build our distributions, and return the folder of their wheels."""
    rubbish = shutil.ignore_patterns("__pycache__", "dist", ".*")
    shutil.copytree(ROOT / "packages", folder / "tree", ignore=rubbish)
    for project in sorted((folder / "tree").iterdir()):
        build(project, folder / "wheels", "wheel")
    return folder / "wheels"


def show(installer: str, answered: Answered) -> None:
    """Print what each command took."""
    total = sum(answered.seconds.values())
    print(f"  with {installer}: {total:.1f} s in all (aim: at most {AIM_SECONDS} s)")
    for command, seconds in answered.seconds.items():
        print(f"    {command:64} {seconds:6.1f} s")


def main() -> None:
    """Measure and print."""
    print(f"Python {platform.python_version()}, from pip install to the first answered request:")
    with tempfile.TemporaryDirectory() as name:
        wheels = build_wheels(Path(name))
        for installer in ("pip", "uv"):
            folder = Path(name) / installer
            folder.mkdir()
            show(installer, lead_to_an_answer(folder, wheels, installer))


if __name__ == "__main__":
    main()
