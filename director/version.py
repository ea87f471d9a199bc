"""Which version this is."""

from cluster.version import VERSION

__all__ = ["VERSION"]
