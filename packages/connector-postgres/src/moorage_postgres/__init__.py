"""PostgreSQL for moorage, and Supabase, on asyncpg or psycopg."""

from moorage_postgres.connector import PostgresConnector
from moorage_postgres.options import PostgresOptions, SupabaseOptions
from moorage_postgres.policies import Grant, Policy, RowLevelSecurity, auth_users, own_rows
from moorage_postgres.supabase import SupabaseConnector

__all__ = [
    "Grant",
    "Policy",
    "PostgresConnector",
    "PostgresOptions",
    "RowLevelSecurity",
    "SupabaseConnector",
    "SupabaseOptions",
    "auth_users",
    "own_rows",
]
