"""The commands about weights of others: which are known by name, and what a model descends from."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import ACCEPT_LICENCE, FILE
from pixelwise.encoder_name import is_library_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pixelwise.hub.ledger import Row
    from pixelwise.hub.licences import Origin


def say_binding(origins: "Iterable[Origin] | None") -> None:
    """Say which licences bind a model and its maps, if there are such."""
    from pixelwise.hub.licences import needs_consent

    bound = [f"{origin.name} ({origin.licence})" for origin in origins or () if needs_consent(origin)]
    if bound:
        names = ", ".join(bound)
        click.echo(f"Licence: the model descends from {names}, which binds it and its maps (`pixelwise licences`).")


@click.command()
@click.argument("name", required=False)
@click.option("--network", default="", help="Only weights that this network or encoder takes.")
@click.option("--licence", default="", help="Only weights whose licence's name holds this text.")
@click.option("--commercial", is_flag=True, help="Only weights whose licence allows commercial use.")
@click.option("--match", default="", help="Only names that hold this text.")
@click.option("--download", is_flag=True, help="Fetch NAME, and print where it is kept.")
@ACCEPT_LICENCE
@click.option(
    "--mirror", "mirrors", multiple=True, metavar="HOST=ADDRESS", help="An address in place of a host; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def weights(
    name: str | None,
    network: str,
    licence: str,
    commercial: bool,
    match: str,
    download: bool,
    accepted: tuple[str, ...],
    mirrors: tuple[str, ...],
    as_json: bool,
) -> None:
    """List weights that are known by name, with their licences.

    [model].weights takes each name, and each short name ("imagenet", "ade20k" ...), which stands for the weights of
    the configuration's own network. NAME prints all that is known of one file; what could not be read in a source is
    "not read".

    \b
    Example:
      pixelwise weights --network segformer-b0
      pixelwise weights --commercial --match resnet
      pixelwise weights torchvision/resnet50
      pixelwise weights nvidia/mit-b0 --download --accept-licence NVIDIA-SegFormer
    """
    from pixelwise.hub import ledger

    if download:
        _fetch(name, network, accepted, mirrors, as_json=as_json)
        return
    if name is not None:
        row = _row(name, network)
        click.echo(json.dumps(row.to_dict(), indent=2, ensure_ascii=False) if as_json else ledger.row_text(row))
        return
    shown = ledger.select(network=network, licence=licence, commercial=commercial, match=match)
    if not shown and not is_library_name(network):
        # A name that does not exist is an error.
        _network(network)
    if as_json:
        click.echo(json.dumps([row.to_dict() for row in shown], indent=2, ensure_ascii=False))
        return
    if not shown:
        click.echo("No weights of the ledger pass these filters. `pixelwise weights` lists all.")
        return
    click.echo(ledger.table_text(shown))
    click.echo(f"{len(shown)} of {len(ledger.rows())} files. `pixelwise weights NAME` prints the rest of a row.")


def _row(name: str, network: str) -> "Row":
    from pixelwise.hub.named_weights import Asked, row_of

    row = row_of(Asked(name, *_network(network)))
    if row is None:
        raise click.UsageError(f"The ledger does not have {name}. `pixelwise weights` lists what it has.")
    return row


def _network(network: str) -> tuple[str, str]:
    """Return a network and its encoder; of an encoder's name, that alone."""
    if not network:
        return "", ""
    from pixelwise.config import ModelConfig
    from pixelwise.models import ENCODERS, list_models
    from pixelwise.training.first_weights import encoder_of

    if network in ENCODERS and network not in list_models():
        return "", network
    return network, encoder_of(ModelConfig(name=network))


def _fetch(
    name: str | None, network: str, accepted: tuple[str, ...], mirrors: tuple[str, ...], *, as_json: bool
) -> None:
    from pixelwise.commands.progress import shown_download
    from pixelwise.hub.addresses import Network
    from pixelwise.hub.licences import records
    from pixelwise.hub.named_weights import Asked, fetch

    if name is None:
        raise click.UsageError("--download needs the NAME of weights.")
    instead = {host: address for host, _, address in (each.partition("=") for each in mirrors)}
    asked = Asked(name, *_network(network), accepted, Network(instead))
    with interruptible("What has come is kept; the same command goes on."):
        with shown_download() as advance:
            path, origin = fetch(asked, advance=advance, say=lambda text: click.echo(text, err=True))
        if as_json:
            click.echo(json.dumps({"path": str(path), **records([origin])[0]}, indent=2, ensure_ascii=False))
        else:
            click.echo(f"{path}")


def _origins(path: Path) -> "tuple[Origin, ...] | None":
    """Return what a model, a file or a map descends from; None if it does not say."""
    from pixelwise.exported.about import read_about
    from pixelwise.exported.network_file import is_exported
    from pixelwise.exported.runtimes import open_runtime
    from pixelwise.runs.origins import origins_of

    about = read_about(path, open_runtime(path, "cpu").metadata) if is_exported(path) else None
    return origins_of(path) if about is None else about.card.origins


@click.command()
@click.argument("path", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def licences(path: Path, as_json: bool) -> None:
    """List the weights that a model descends from.

    PATH is a run, a model folder, an exported file, a file of weights, or a map that was made with a model.

    \b
    Example:
      pixelwise licences runs/fields
      pixelwise licences fields.onnx
      pixelwise licences map.tif --json
    """
    from pixelwise.hub.ledger import licence_of
    from pixelwise.hub.licences import GIVEN_BY_PATH, records

    origins = _origins(path)
    if as_json:
        click.echo(json.dumps(None if origins is None else records(origins), indent=2, ensure_ascii=False))
        return
    if origins is None:
        click.echo(f"{path} names no weights of others: none are known, or it was made before pixelwise kept them.")
        return
    if not origins:
        click.echo(f"{path} descends from no weights of others: its training began with fresh ones.")
        return
    for origin in origins:
        terms = "" if origin.licence == GIVEN_BY_PATH else licence_of(origin.licence).terms
        facts = {
            "licence": origin.licence,
            "commercial": origin.commercial,
            "terms": terms,
            "attribution": origin.attribution,
            "source": origin.source,
            "SHA-256": origin.sha256,
        }
        click.echo("\n".join([origin.name, *(f"  {key:<12} {value}" for key, value in facts.items() if value)]))
