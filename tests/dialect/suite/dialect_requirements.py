"""What SQLite does not have, whoever's dialect it is."""

from typing import Any

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements


class Requirements(SuiteRequirements):  # type: ignore[misc]  # SQLAlchemy's tests have no types
    """SQLite's."""

    schemas: Any = property(lambda self: exclusions.closed())
    temp_table_reflection: Any = property(lambda self: exclusions.closed())
    temporary_views: Any = property(lambda self: exclusions.closed())
    parens_in_union_contained_select_w_limit_offset: Any = property(
        lambda self: exclusions.closed()
    )
    parens_in_union_contained_select_wo_limit_offset: Any = property(
        lambda self: exclusions.closed()
    )
