"""
Many processes that migrate one database at once.

``python -m tests.migrations.fleet COUNT MODULE ALEMBIC_INI...`` imports everything once. For each
file it forks COUNT processes, lets all of them go at the same moment, and prints as JSON what
became of each: what it printed, and its error. They run Alembic's own command; ``env.py`` is what
differs.
"""

import contextlib
import io
import json
import os
import sys
import traceback
from importlib import import_module


def one(config: str) -> dict[str, object]:
    """Run ``alembic upgrade head``; return what was printed, and the error if there was one."""
    from alembic.config import CommandLine, Config

    printed = io.StringIO()
    line = CommandLine()
    options = line.parser.parse_args(["-c", config, "upgrade", "head"])
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            line.run_cmd(Config(config, stdout=printed, cmd_opts=options), options)
    except BaseException:  # noqa: BLE001 (whatever it is, it is the result)
        return {"error": traceback.format_exc(), "printed": printed.getvalue()}
    return {"error": "", "printed": printed.getvalue()}


def fleet(count: int, config: str) -> list[object]:
    """Run many processes at once, and return what became of them."""
    gate, open_gate = os.pipe()
    readers = []
    for _ in range(count):
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(open_gate)
            os.read(gate, 1)  # until the parent closes its end
            os.write(write, json.dumps(one(config)).encode())
            os._exit(0)
        os.close(write)
        readers.append(read)
    os.close(open_gate)
    results = []
    for read in readers:
        with os.fdopen(read, "rb") as stream:
            results.append(json.loads(stream.read() or b'{"error": "died", "printed": ""}'))
        os.wait()
    os.close(gate)
    return results


if __name__ == "__main__":
    processes, connector, *configs = sys.argv[1:]
    for module in ("alembic.command", "moorage.migrations", connector):
        import_module(module)
    found = [fleet(int(processes), config) for config in configs]
    print(json.dumps(found))  # noqa: T201 (read by the test)
