"""The page on policies does what it says."""

import re
from pathlib import Path
from textwrap import dedent

from sqlalchemy import Connection

from moorage import Database
from tests.policies.revisions import Revision, models, protection, within

PAGE = (Path(__file__).parents[2] / "docs/policies.md").read_text(encoding="utf-8")


def squeezed(code: str) -> str:
    """Return code without what may differ."""
    return re.sub(r"\s+", "", code.replace("'", '"')).replace(",)", ")")


async def test_the_page_on_policies_runs(project: Database) -> None:
    """What autogenerate writes for the models of the page is what the page shows."""
    code, shown, alone = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    exec(alone)  # noqa: S102 (our own page)
    # On a base of its own: that of moorage would keep the tables for other tests.
    metadata = models(code.replace("import Base, ", "import "))

    def work(connection: Connection) -> None:
        revision = Revision(connection, metadata)
        imported, body = shown.split("def protect_notes() -> None:\n")
        for line in body.splitlines():
            assert squeezed(line) in squeezed(revision.upgrade)
        revision.run()
        made = protection(connection)
        assert Revision(connection, metadata).differences == []
        revision.run("op.drop_policy('own_rows', 'notes')\nop.disable_rls('notes')")
        revision.run(imported + dedent(body))
        assert protection(connection) == made

    await within(project, work)
    assert len(metadata.tables["notes"].indexes) == 2
