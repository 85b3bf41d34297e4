"""The example service is not installed: its source is put on the path, as `--app-dir` would."""

import sys

from scripts.demo_server import SOURCE

sys.path.insert(0, str(SOURCE))
