"""Tests in a browser need what drives it, which the quick tests do without."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("playwright") else ["test_browser.py", "test_local_model.py"]
