"""PostgreSQL for moorage, on asyncpg."""

from moorage_postgres.connector import PostgresConnector
from moorage_postgres.options import PostgresOptions

__all__ = ["PostgresConnector", "PostgresOptions"]
