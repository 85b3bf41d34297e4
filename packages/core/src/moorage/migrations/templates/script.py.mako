"""
${message}

Revision: ${up_revision}
After: ${down_revision | comma,n}
Created: ${create_date}
"""

from collections.abc import Sequence

<%
    # In the order of isort and ruff, what is the project's own last.
    own = ["alembic"]
    needed = {"import sqlalchemy as sa", "from alembic import op", *(imports or "").splitlines()}
    ordered = sorted(needed, key=lambda line: (line.startswith("from"), line.split()[1].lower()))
    groups = ([], [])
    for line in ordered:
        groups[line.split()[1].partition(".")[0] in own].append(line)
    blocks = "\n\n".join("\n".join(group) for group in groups if group)
%>\
${blocks}

revision: str = ${repr(up_revision)}
down_revision: str | Sequence[str] | None = ${repr(down_revision)}
branch_labels: str | Sequence[str] | None = ${repr(branch_labels)}
depends_on: str | Sequence[str] | None = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
