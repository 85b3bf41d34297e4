"""
Record ``moorage init`` at work, as a picture for the documentation::

    python scripts/record_init.py        writes docs/init.svg

The commands are run as they are shown, in an empty folder, by the Python that runs this.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "init.svg"
COMMANDS = ("moorage init sqlite --yes --upgrade --tool pip", "moorage doctor")
PROGRAM = "from moorage.cli import main; main()"


def main() -> int:
    """Run the commands and write the picture."""
    with Path(os.devnull).open("w") as nowhere, tempfile.TemporaryDirectory() as place:
        console = Console(record=True, width=92, file=nowhere, highlight=False)
        folder = Path(place) / "shop"
        folder.mkdir()
        kept = {n: v for n, v in os.environ.items() if not n.startswith("DB_")}
        kept.pop("DATABASE_URL", None)
        for command in COMMANDS:
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, *command.split()[1:]],
                cwd=folder,
                env=kept,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                print(done.stdout, done.stderr, sep="\n")
                return 1
            console.print(f"[bold green]$[/bold green] [bold]{command}[/bold]")
            console.print(done.stdout.replace(str(folder.resolve()), "~/shop"), markup=False)
        picture = console.export_svg(title="moorage init", unique_id="moorage-init")
    lines = (line.rstrip() for line in picture.splitlines())
    PICTURE.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
