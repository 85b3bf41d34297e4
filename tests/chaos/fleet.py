"""
Many processes that migrate one database at once.

``python -m tests.chaos.fleet COUNT ALEMBIC_INI`` imports everything once, forks COUNT processes,
lets all of them go at the same moment, and prints as JSON what became of each: which revisions it
applied, or its error. The processes run Alembic's own command; what ``env.py`` does is the matter.
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


def main(count: int, config: str) -> None:
    """Run the fleet and print its results."""
    for module in ("alembic.command", "moorage.migrations", *sys.argv[3:]):
        import_module(module)
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
    for _ in range(count):
        os.wait()
    print(json.dumps(results))  # noqa: T201 (read by the test)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
