"""The hub's web pages: rendered here, read-only, with nothing from outside."""
