"""SQLAlchemy's own plug-in for tests of dialects, told of ours."""

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: F403

import moorage_sqlite.dialect  # noqa: F401 (registers the dialect)
