"""Which version this is."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("txdirector")
except PackageNotFoundError:  # run from a tree that was never installed
    VERSION = "0+unknown"
