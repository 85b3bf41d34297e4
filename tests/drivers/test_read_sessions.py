"""Read sessions on the second driver: the tests of the first one."""

from tests.matrix.test_read_sessions import *  # noqa: F403
