"""Recipes: read, check and seal them, and take their numbers in the unit needed."""

from edge.core.recipe.calls import Operations, read_operation
from edge.core.recipe.check import check_recipe, remarks
from edge.core.recipe.model import Recipe
from edge.core.recipe.read import RecipeDocument, read_recipe, read_recipe_or_operation, seal, sealed_bytes
from edge.core.recipe.values import limit_in, resolve, set_point_in

__all__ = [
    "Operations",
    "Recipe",
    "RecipeDocument",
    "check_recipe",
    "limit_in",
    "read_operation",
    "read_recipe",
    "read_recipe_or_operation",
    "remarks",
    "resolve",
    "seal",
    "sealed_bytes",
    "set_point_in",
]
