"""MySQL and MariaDB for moorage, on aiomysql."""

from moorage_mysql.connector import MySQLConnector
from moorage_mysql.options import MySQLOptions

__all__ = ["MySQLConnector", "MySQLOptions"]
