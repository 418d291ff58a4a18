"""What every process of asb needs of the world around it."""

from typing import Final

VERSION: Final = "0.1.0"  # of the package; pyproject.toml says the same
