"""Every bound of the service, for ``docs/limits.md``."""
