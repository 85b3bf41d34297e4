"""A new distribution with a connector, as ``moorage connector new`` writes it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from moorage.connector import CONTRACT_VERSION
from moorage.errors import ConnectorContractError, ScaffoldError
from moorage.registry import check_connector_name, installed_connectors
from moorage.scaffold.rendering import render, write_new_folder

__all__ = ["ConnectorPlan", "plan_connector", "render_connector", "write_connector"]

_DRIVER = re.compile(r"[a-z][a-z0-9_]*\+[a-z][a-z0-9_]*")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?([<>=!~][^\s\"';]*)?")


@dataclass(frozen=True)
class ConnectorPlan:
    """
    What a new connector is called.

    Attributes:
        name: What ``DB_TYPE`` will say.
        title: The backend's name in prose.
        distribution: Name of the distribution.
        module: Name of its package.
        prefix: Beginning of its classes' names.
        driver: SQLAlchemy's name of dialect and driver.
        requirement: The distribution of the driver.
        port: Default port; ``None`` for a backend without a network.
        contract: Number of the contract that it is written for.
        version: Version of moorage that it needs.
    """

    name: str
    title: str
    distribution: str
    module: str
    prefix: str
    driver: str
    requirement: str
    port: int | None
    contract: int
    version: str


def plan_connector(
    name: str, *, driver: str = "", requirement: str = "", port: int | None = None
) -> ConnectorPlan:
    """
    Return what a connector of a name will be called, after making sure that it can be.

    Raises:
        ScaffoldError: The name, the driver or the requirement cannot be used.
    """
    from moorage import __version__

    _check_name(name)
    driver = driver or f"{name}+async{name}"
    if _DRIVER.fullmatch(driver) is None:
        raise ScaffoldError(
            f"{driver!r} is no driver of SQLAlchemy's",
            hint="write dialect and driver, as in --driver postgresql+asyncpg",
        )
    requirement = requirement or driver.partition("+")[2]
    if _REQUIREMENT.fullmatch(requirement) is None:
        raise ScaffoldError(
            f"{requirement!r} is no requirement", hint="write it as in --requires 'asyncpg>=0.31'"
        )
    words = name.split("_")
    return ConnectorPlan(
        name=name,
        title=" ".join(word.capitalize() for word in words),
        distribution=f"moorage-{name.replace('_', '-')}",
        module=f"moorage_{name}",
        prefix="".join(word.capitalize() for word in words),
        driver=driver,
        requirement=requirement,
        port=port,
        contract=CONTRACT_VERSION,
        version=__version__,
    )


def render_connector(plan: ConnectorPlan) -> dict[PurePosixPath, str]:
    """Return the files of the distribution, by path."""
    return render("connector", asdict(plan))


def write_connector(plan: ConnectorPlan, into: Path) -> list[Path]:
    """
    Write the distribution into a new folder, and return the files.

    Raises:
        ScaffoldError: Something is there already.
        MissingExtraError: jinja2 is not installed.
    """
    rendered = render_connector(plan)
    write_new_folder(into, rendered)
    return [into / path for path in rendered]


def _check_name(name: str) -> None:
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).removeprefix("moorage_").strip("_")
    try:
        check_connector_name(name, "the new connector")
    except ConnectorContractError as error:
        better = f"write {plain}" if plain not in {"", name} else "choose another name"
        raise ScaffoldError(str(error.args[0]), hint=better) from None
    if name.startswith("moorage"):
        raise ScaffoldError(
            f"{name!r} begins with moorage, which the distribution's name does anyway",
            hint=f"write {plain}" if plain and plain != "moorage" else "choose another name",
        )
    if name.endswith("_") or "__" in name:
        raise ScaffoldError(
            f"{name!r} makes no name of a distribution", hint=f"write {re.sub('_+', '_', plain)}"
        )
    for installed in installed_connectors():
        if installed.name == name:
            where = installed.distribution or "this process"
            raise ScaffoldError(
                f"there is a connector {name!r} already, of {where}; two cannot be installed"
                " together",
                hint=f"choose another name, such as {name}_async",
            )
