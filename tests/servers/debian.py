"""Get programs from Debian packages, with deadlines: installed as root, else only unpacked."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.servers.supervision import ProgramError

UPDATE_SECONDS = 180.0
INSTALL_SECONDS = 300.0

NETWORK = ("-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20")


def available() -> bool:
    """Tell whether this machine has Debian's package tools."""
    return all(shutil.which(name) for name in ("apt-get", "dpkg-deb"))


def install(packages: Sequence[str]) -> None:
    """
    Install packages as root, without what they only recommend.

    Raises:
        ProgramError: The installation failed or took too long.
    """
    _apt(["update"], UPDATE_SECONDS)
    _apt(["install", "--yes", "--no-install-recommends", *packages], INSTALL_SECONDS)


def unpack(packages: Sequence[str], target: Path) -> None:
    """
    Unpack packages, and what they depend on and this machine lacks, into ``target``.

    The machine's own package state is read and never written: lists and downloads go to a
    temporary directory.

    Raises:
        ProgramError: A download failed or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="moorage-apt-") as name:
        private = Path(name)
        for folder in ("lists/partial", "archives/partial"):
            (private / folder).mkdir(parents=True)
        options = [
            *("-o", f"Dir::State::lists={private / 'lists'}"),
            *("-o", f"Dir::Cache={private}"),
            *("-o", f"Dir::Cache::archives={private / 'archives'}"),
            *("-o", "Debug::NoLocking=1"),
            # Under root apt would download as a user of its own, who cannot enter the directory.
            *("-o", "APT::Sandbox::User="),
        ]
        _apt([*options, "update"], UPDATE_SECONDS)
        # --reinstall: apt would not download again what it takes for installed.
        wanted = ["install", "--yes", "--no-install-recommends", "--reinstall", "--download-only"]
        _apt([*options, *wanted, *packages], INSTALL_SECONDS)
        for archive in sorted((private / "archives").glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(archive), str(target)], INSTALL_SECONDS)


def _apt(arguments: Sequence[str], seconds: float) -> None:
    _run(["apt-get", "--quiet", *NETWORK, *arguments], seconds)


def _run(argv: Sequence[str], seconds: float) -> None:
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{argv[0]} did not end within {seconds:.0f} s") from None
    if done.returncode:
        raise ProgramError(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}")
