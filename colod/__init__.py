"""Keep a Xen guest alive when its host dies."""

__version__ = "0.1.0"
