"""What several tests of packaging share."""

import shutil

import pytest

from tests.packaging.building import MODULES, ROOT, Built, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    """Build all distributions in a copy of the tree."""
    tree = tmp_path_factory.mktemp("tree")
    rubbish = shutil.ignore_patterns("__pycache__", "dist", ".*")
    shutil.copytree(ROOT / "packages", tree / "packages", ignore=rubbish)
    found = {}
    for project in sorted(tree.glob("packages/*/pyproject.toml")):
        dist = tree / "dist" / project.parent.name
        build(project.parent, dist)
        (wheel,) = dist.glob("*.whl")
        (sdist,) = dist.glob("*.tar.gz")
        found[wheel.name.partition("-")[0].replace("_", "-")] = Built(wheel, sdist)
    assert found.keys() == MODULES.keys()
    return found
