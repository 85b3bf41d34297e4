"""
What ``import moorage`` costs on top of what it stands on.

Fresh interpreters import SQLAlchemy and pydantic-settings first, then moorage, each with a clock
on it. What is printed is the least processor time of each: other work on the machine only adds.
"""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version

ROUNDS = 25
BASE = "import sqlalchemy.ext.asyncio, pydantic_settings"
PROGRAM = f"""
import json
import time
clock = [time.process_time()]
{BASE}
clock.append(time.process_time())
import moorage
clock.append(time.process_time())
print(json.dumps(clock))
"""


def milliseconds() -> tuple[float, float]:
    """Return what a fresh interpreter spends on the base, and on moorage."""
    # As after an installation: what is imported is compiled already.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    begin, base, end = json.loads(done.stdout)
    return 1000 * (base - begin), 1000 * (end - base)


def main() -> None:
    """Measure and print."""
    milliseconds()  # compiles what is not compiled
    rounds = [milliseconds() for _ in range(ROUNDS)]
    base, extra = (min(column) for column in zip(*rounds, strict=True))
    print(
        f"Python {platform.python_version()}, SQLAlchemy {version('sqlalchemy')},"
        f" the fastest of {ROUNDS} fresh interpreters:"
    )
    print(f"  {BASE:52} {base:7.1f} ms")
    print(f"  {'import moorage on top (aim: at most 15 ms)':52} {extra:7.1f} ms")


if __name__ == "__main__":
    main()
