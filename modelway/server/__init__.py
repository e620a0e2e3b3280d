"""The HTTP server: routes, what guards them, and the one endpoint behind all dialects."""
