"""The command that divides data once and for all, into lists that this and other tools read."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE, OVERRIDES

if TYPE_CHECKING:
    from pixelwise.config import DataConfig
    from pixelwise.data.scenes import Scene


@click.command()
@click.argument("config", type=FILE)
@click.argument("folder", type=FILE)
@click.option(
    "--lines",
    type=click.Choice(["image", "pair", "name"]),
    default="image",
    show_default=True,
    help="What a line holds: an image's path below [data].images, image and mask, or a name without suffix.",
)
@OVERRIDES
def split(config: Path, folder: Path, lines: str, overrides: tuple[str, ...]) -> None:
    """Divide images into lists for training, validation and test.

    They are train.txt, val.txt and test.txt in FOLDER. [data] says how: shares, folders, a table, groups, classes in
    each part. Name the lists as training_list, validation_list and test_list, and they hold. Pairs are relative to
    FOLDER, as PaddleSeg reads them; names are what mmsegmentation and Pascal VOC have.

    \b
    Example:
      pixelwise split fields.toml lists --set data.test=0.1 --set data.stratify=true
      pixelwise split street.toml lists --lines pair
    """
    with interruptible("Nothing was written."):
        from pixelwise.config import load_config
        from pixelwise.data.split import open_split
        from pixelwise.data.split_lists import PARTS, write_plain_lists
        from pixelwise.errors import ConfigError

        loaded = load_config(config, overrides)
        if loaded.data.split == "block":
            raise ConfigError(
                "Blocks of ground are no files, so other tools cannot read them. A run keeps its blocks in split/; or "
                "use [data].split = 'scene'.",
                code="PW310",
            )
        _, found = open_split(loaded)
        parts = {part: getattr(found, part) for part in PARTS}
        listed = {part: [_line(scene, loaded.data, folder, lines) for scene in parts[part]] for part in PARTS}
        for path, count in write_plain_lists(folder, listed):
            click.echo(f"{path}: {count} images")


def _line(scene: "Scene", data: "DataConfig", folder: Path, kind: str) -> str:
    from pixelwise.config import as_places
    from pixelwise.data.folder import image_place
    from pixelwise.data.masks import MaskFile
    from pixelwise.errors import ConfigError

    path = scene.info.path
    if kind == "image":
        return image_place(path, as_places(data.images))
    if kind == "name":
        return path.stem
    if not isinstance(scene.labels, MaskFile):
        raise ConfigError(f"{path} has no mask but polygons or annotations, so there is no pair. Use --lines image.")
    base = folder.resolve()
    image, mask = (Path(os.path.relpath(each, base)).as_posix() for each in (path, scene.labels.reader.info.path))
    # A tab, where a space would divide a name.
    return f"{image}\t{mask}" if " " in image + mask else f"{image} {mask}"
