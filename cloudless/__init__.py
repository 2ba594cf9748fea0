"""cloudless: a small-cluster coordinator whose control plane does not go down."""

__version__ = "0.1.0"
