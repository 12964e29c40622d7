"""`lineside recipe derive`: a site's recipe from a master and a site file; what a moved master means for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edge.terminal import AsJson


def derive(
    master: Annotated[Path, typer.Argument(help="The master recipe's file.")],
    site: Annotated[Path, typer.Argument(help="The site file: units for roles, values for site parameters.")],
    out: Annotated[Path, typer.Option(help="The recipe file to make; nothing is overwritten.")],
    plant: Annotated[Path | None, typer.Option(help="Also check it against this plant file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a site's recipe from a master. The same master and site file make the same recipe, with the same seal.

    It is a draft like any other: submit it, have it approved, release it.

    Example: lineside recipe derive cart-b1.yaml berlin.yaml --out berlin-cart-b1.yaml --plant plant.yaml
    """
    from edge.core.document import together
    from edge.core.plant import read_plant
    from edge.core.recipe import check_recipe, read_recipe, seal
    from edge.core.recipe.compare import compare
    from edge.core.recipe.site import derive as derived_from
    from edge.core.recipe.site import read_site
    from edge.exchange.draft import as_yaml
    from edge.library import read_bounded, read_recipe_file
    from edge.pack import write_exchanged

    on = read_plant(read_bounded(plant), str(plant)) if plant else None
    from_master = read_recipe_file(master).recipe
    recipe = derived_from(from_master, read_site(read_bounded(site), str(site)))
    made = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    head = [
        f"Made from the master {from_master.recipe} {from_master.version} and {site.name} by lineside recipe derive.",
        "Change the master or the site file and make it anew; what is changed here is no site's recipe any more.",
    ]
    text = as_yaml(made, head=head).encode()
    if findings := check_recipe(read_recipe(text, str(out)), on):
        raise together(findings)
    write_exchanged(out, text)
    changes = compare(from_master, recipe)
    if as_json:
        facts = {"ok": True, "out": str(out), "recipe": recipe.recipe, "version": recipe.version, "seal": seal(recipe)}
        print(json.dumps({**facts, "changes": [one.as_json() for one in changes]}, ensure_ascii=False))
        return
    print(f"{out}: {recipe.recipe} {recipe.version}, seal {seal(recipe)}. In the master it changes:")
    print("".join(f"  {change.text}\n" for change in changes), end="")


def moved(base: Path, new: Path, site: Path) -> list[str] | None:
    """What a site must look at because its master went from `base` to `new`; None when `site` is no site file."""
    from edge.core.document import read_document
    from edge.core.recipe.site import derive, is_site, read_site, to_look_at
    from edge.library import read_bounded, read_recipe_file

    data = read_bounded(site)
    if not is_site(read_document(data, str(site))):
        return None
    given, old = read_site(data, str(site)), read_recipe_file(base).recipe
    derive(old, given)  # it must be a site file of that master
    return to_look_at(old, read_recipe_file(new).recipe, given)
