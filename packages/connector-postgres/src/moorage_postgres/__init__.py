"""PostgreSQL for moorage, and Supabase, on asyncpg."""

from moorage_postgres.connector import PostgresConnector
from moorage_postgres.options import PostgresOptions, SupabaseOptions
from moorage_postgres.supabase import SupabaseConnector

__all__ = ["PostgresConnector", "PostgresOptions", "SupabaseConnector", "SupabaseOptions"]
