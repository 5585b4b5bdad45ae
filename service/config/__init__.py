"""Configuration: settings, and the file of routes and keys."""
