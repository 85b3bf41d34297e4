"""
Each class of error on the second driver: the tests of the first one.

``MOORAGE_TEST_POSTGRES_DRIVER=psycopg`` runs any other test on this driver.
"""

from tests.matrix.test_errors import *  # noqa: F403
