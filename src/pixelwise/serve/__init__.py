"""The server: models answer over HTTP, for people, programs and a page."""
