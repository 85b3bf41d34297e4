"""
Where servers and their programs may live on disk.

A database server refuses to run as root, so under root it runs as ``nobody``. Whatever that user
has to read must then be reachable by others, which a virtual environment below ``/root`` is not.
"""

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MEMORY_DISK = "/dev/shm"
# Containers give 64 MiB by default, which one server's write-ahead log alone can fill.
MEMORY_DISK_BYTES = 2 * 1024**3


class UnsafePlaceError(RuntimeError):
    """A directory that programs would be run from can be written by somebody else."""


@dataclass(frozen=True)
class ServerUser:
    """The user that a server runs as: both ids are None where it is the present user."""

    uid: int | None
    gid: int | None

    @property
    def extra_groups(self) -> list[int] | None:
        return None if self.uid is None else []

    def give(self, path: Path) -> None:
        """Make this user the owner of ``path``."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def server_user() -> ServerUser:
    """Return ``nobody`` under root and the present user otherwise."""
    if os.geteuid() != 0:
        return ServerUser(None, None)
    nobody = pwd.getpwnam("nobody")
    return ServerUser(nobody.pw_uid, nobody.pw_gid)


def reachable(path: Path) -> bool:
    """Tell whether the server's user can read ``path``, judging by the permission bits."""
    if server_user().uid is None:
        return os.access(path, os.R_OK | os.X_OK)
    place = path.resolve()
    return place.exists() and all(
        step.stat().st_mode & stat.S_IXOTH for step in (place, *place.parents)
    )


def run_directory() -> Path:
    """
    Return an existing directory for short-lived data that the server's user can enter.

    A roomy memory disk is preferred unless ``TMPDIR`` asks for another place: each new database
    is several hundred files, and creating them on a disk can take most of a test's time.
    """
    temporary = [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    if "TMPDIR" not in os.environ and _free_bytes(MEMORY_DISK) >= MEMORY_DISK_BYTES:
        temporary.insert(0, MEMORY_DISK)
    for name in temporary:
        if reachable(Path(name)) and os.access(name, os.W_OK):
            return Path(name)
    raise UnsafePlaceError("no temporary directory that the database server can enter")


def _free_bytes(name: str) -> int:
    try:
        return shutil.disk_usage(name).free
    except OSError:
        return 0


def cached_tree(name: str, build: Callable[[Path], None]) -> Path:
    """
    Return a directory of programs that outlives the run, made by ``build`` when it is missing.

    The tree appears under its name only when it is complete, so two runs may race and a killed
    run leaves no half of one. Programs are run from it: the cache must belong to the present user
    and be closed to writing by others.

    Raises:
        UnsafePlaceError: The cache belongs to, or can be written by, somebody else.
    """
    cache = _cache_directory()
    tree = cache / name
    if not tree.exists():
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
        try:
            build(draft)
            draft.chmod(0o755)
            try:
                draft.rename(tree)
            except OSError:
                # Another run was first; a non-empty directory is never replaced by a rename.
                if not tree.is_dir():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    _require_own(tree)
    return tree


def copy_readable(source: Path, target: Path) -> None:
    """Copy the content of ``source`` into ``target`` so that every user may read and run it."""
    shutil.copytree(source, target, symlinks=True)
    for path in _walk(target):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(stat.S_IMODE(mode) | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)


def _walk(top: Path) -> Iterable[Path]:
    yield top
    yield from top.rglob("*")


def _cache_directory() -> Path:
    # /var/cache can be written by root only, and others can read it: both are needed there.
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    system = Path("/var/cache")
    wanted = system if os.geteuid() == 0 else home
    shared = Path(tempfile.gettempdir()) / f"moorage-test-servers-{os.geteuid()}"
    for cache in (wanted / "moorage-test-servers", shared):
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        _require_own(cache)
        # Not through mkdir, whose mode is cut by the umask.
        cache.chmod(0o755)
        if os.access(cache, os.W_OK):
            return cache
    raise UnsafePlaceError(f"no writable cache: tried {wanted} and {shared.parent}")


def _require_own(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UnsafePlaceError(
            f"{path} is not a directory of the present user alone; delete it or set TMPDIR"
        )
