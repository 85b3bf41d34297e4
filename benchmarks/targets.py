"""What is aimed at; a target is reached when the upper quartile of the ratio reaches it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """A ratio of moorage's speed to a base's; without a base, to that of the smallest load."""

    section: str
    work: str
    base: str
    wanted: float
    variant: str = "moorage"

    def found(self, results: dict[str, Any]) -> dict[str, float] | None:
        """Return the ratio that was measured, or ``None``."""
        work = results.get(self.section, {}).get(self.work, {})
        bases = work.get(self.base, {}) if self.base else work
        ratio: dict[str, float] | None = bases.get(self.variant)
        return ratio


TARGETS = (
    Target("postgres", "read, 1 task", "raw driver", 0.65),
    Target("postgres", "read, 32 tasks", "raw driver", 0.30),
    Target("postgres", "write, 32 tasks", "everybody's", 1.5),
    Target("postgres", "change, 32 tasks", "everybody's", 1.5),
    Target("web", "FastAPI GET", "raw driver", 0.45),
    Target("web", "FastAPI GET", "advanced-alchemy", 2.5),
    Target("web", "FastAPI GET", "fastapi-sqla", 2.5),
    Target("mysql", "read, 1 task", "everybody's", 1.6),
    Target("mysql", "read, 32 tasks", "everybody's", 1.6),
    Target("mysql", "write, 1 task", "everybody's", 1.3),
    Target("mysql", "write, 32 tasks", "everybody's", 1.3),
    Target("bulk", "postgres", "raw driver", 0.95, "bulk_insert, tuples"),
    Target("bulk", "mysql", "add_all", 20.0, "bulk_insert, tuples"),
    Target("bulk", "sqlite", "raw driver", 0.95, "bulk_insert, tuples"),
    Target("sqlite", "write, 32 tasks", "everybody's", 2.3),
    Target("sqlite", "change, 32 tasks", "everybody's", 2.0),
    Target("sqlite", "read, 1 task", "everybody's", 2.5),
    # Flat within a tenth; the ratio is that to the smallest.
    Target("growth", "postgres, rows in the table", "", 0.9, "1,000,000 rows"),
    Target("growth", "postgres, distinct statements", "", 0.9, "10,000 statements"),
    Target("growth", "mysql, rows in the table", "", 0.9, "1,000,000 rows"),
    Target("growth", "mysql, distinct statements", "", 0.9, "10,000 statements"),
)
