"""A project of Supabase whose models are written in the test."""

from pathlib import Path
from textwrap import dedent
from typing import Any

from moorage import migrations
from tests.migrations.project import Project
from tests.policies.revisions import MODELS


class Harbour(Project):
    """A project on the test's database, which takes it for Supabase's."""

    def __init__(self, folder: Path, database: dict[str, Any], arguments: str = "") -> None:
        super().__init__(folder, {**database, "type": "supabase"}, arguments=arguments)
        self.arguments = arguments

    def declare(self, models: str) -> None:
        """Write the models anew."""
        (self.folder / "migrations/env.py").write_text(
            "from moorage import DatabaseSettings\nfrom moorage.migrations import run\n"
            f"{MODELS}\n{dedent(models)}\n"
            f"settings = DatabaseSettings(**{ {**self.database, '_env_file': None}!r})\n"
            f"run(Base.metadata, settings=settings, {self.arguments})\n"
        )

    async def migrate(self) -> str:
        """Write a revision for what is declared, apply it, and return its text."""
        made = await migrations.revision("next", config=self.config)
        await migrations.upgrade(config=self.config)
        return Path(made.path).read_text()

    async def differences(self) -> tuple[str, ...]:
        """Return what autogenerate would still do."""
        return (await migrations.check(config=self.config)).differences
