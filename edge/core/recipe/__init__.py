"""Read, check and seal a recipe."""
