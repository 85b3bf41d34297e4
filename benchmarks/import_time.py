"""
What ``import moorage`` costs on top of what it stands on.

Fresh interpreters run in turn, with and without moorage. What is printed is the least processor
time of each: other work on the machine can only add to it.
"""

import os
import platform
import subprocess
import sys
from importlib.metadata import version

ROUNDS = 25
BASE = "import sqlalchemy.ext.asyncio, pydantic_settings"
TIMED = """
import time
begin = time.process_time()
{imports}
print(time.process_time() - begin)
"""


def milliseconds(imports: str) -> float:
    """Return the processor time that a fresh interpreter spends on the imports."""
    # As after an installation: what is imported is compiled already.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    program = [sys.executable, "-c", TIMED.format(imports=imports)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    return 1000 * float(done.stdout)


def main() -> None:
    """Measure and print."""
    both = f"{BASE}\nimport moorage"
    for imports in (BASE, both):  # the files of both are in the cache of the system
        milliseconds(imports)
    pairs = [(milliseconds(BASE), milliseconds(both)) for _ in range(ROUNDS)]
    base, whole = (min(column) for column in zip(*pairs, strict=True))
    print(
        f"Python {platform.python_version()}, SQLAlchemy {version('sqlalchemy')},"
        f" the fastest of {ROUNDS} fresh interpreters each:"
    )
    print(f"  {BASE:52} {base:7.1f} ms")
    print(f"  {'with import moorage':52} {whole:7.1f} ms")
    print(f"  {'import moorage on top (aim: at most 15 ms)':52} {whole - base:7.1f} ms")


if __name__ == "__main__":
    main()
