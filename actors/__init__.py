"""Who says it: the actors that own requests, logs, caches and providers. Runs without the service."""
