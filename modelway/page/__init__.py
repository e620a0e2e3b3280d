"""The page at `/`: chat in the browser, rendered by the server."""
