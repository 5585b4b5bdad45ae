"""The HTTP surfaces, one a module; each offers ``add_routes(app)``."""
