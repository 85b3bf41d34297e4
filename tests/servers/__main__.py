"""
Run a command beside throwaway servers.

``python -m tests.servers run postgres mysql -- pytest tests`` starts both, puts their URLs into
the command's environment, ends with the command's exit status, and leaves nothing behind.
"""

import os
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from types import FrameType

from tests.servers import BACKENDS, ServerUnavailable, throwaway, url_variable


def parse(arguments: list[str]) -> Namespace:
    """Split the command line into backends and the command after ``--``."""
    parser = ArgumentParser(prog="python -m tests.servers", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="run a command beside servers")
    run.add_argument("backends", nargs="+", choices=BACKENDS)
    own, separator, command = arguments, "", []
    if "--" in arguments:
        where = arguments.index("--")
        own, separator, command = arguments[:where], "--", arguments[where + 1 :]
    parsed = parser.parse_args(own)
    if not separator or not command:
        parser.error("the command to run is missing: ... -- COMMAND")
    parsed.command = command
    return parsed


def run(backends: list[str], command: list[str]) -> int:
    """Run the command and return its exit status, as a shell would report it."""
    environment = dict(os.environ)
    with ExitStack() as stack:
        for backend in dict.fromkeys(backends):
            server = stack.enter_context(throwaway(backend))
            environment[url_variable(backend)] = server.url
        process = stack.enter_context(subprocess.Popen(command, env=environment))

        def forward(number: int, _frame: FrameType | None) -> None:
            process.send_signal(number)

        # Ctrl-C reaches the command by itself, for it shares the terminal with us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, forward)
        status = process.wait()
    return status if status >= 0 else 128 - status


def main() -> int:
    """Run the command line."""
    arguments = parse(sys.argv[1:])
    try:
        return run(arguments.backends, arguments.command)
    except ServerUnavailable as error:
        print(error, file=sys.stderr)
        return 69
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main())
