"""The recipes that [train].recipe names: values of other keys, chosen by measurement (docs/recipes.md)."""

from pixelwise.config_table import Table, merged

RECIPES: dict[str, dict[str, dict[str, object]]] = {
    # For minutes on a CPU: many small steps.
    "quick": {"train": {"schedule": "one_cycle", "batch_size": 4, "crop_size": 128}},
    "strong": {"train": {"schedule": "one_cycle"}, "predict": {"flips": True}},
}
"""Recipe -> table -> key -> value."""


def with_recipe(config: Table) -> Table:
    """Return a configuration with the values of its recipe, if it names one. Keys that are written win."""
    train = config.get("train")
    recipe = RECIPES.get(str(train.get("recipe"))) if isinstance(train, dict) else None
    return config if recipe is None else merged(dict(recipe), config)
