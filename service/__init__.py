"""Where it runs: the HTTP and WebSocket service, its settings, logs and telemetry."""
