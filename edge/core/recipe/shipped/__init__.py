"""The recipes that ship with the box, one YAML file each: read them with `importlib.resources`."""
