"""What the providers' tests share."""

from tests.conftest_local import model_path

__all__ = ["model_path"]
