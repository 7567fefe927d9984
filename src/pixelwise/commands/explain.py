"""The command that says what the code of an error or a finding means."""

import json

import click

from pixelwise.codes import code_text, codes, codes_about, errors_page, list_text, near_codes


@click.command()
@click.argument("code", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: of one code, or of all.")
@click.option("--markdown", is_flag=True, help="Print the page of all codes, docs/errors.md.")
def explain(code: str | None, as_json: bool, markdown: bool) -> None:
    """Say what the code of an error means, and how to fix it.

    It tells what happened, why, what to do, and shows an example. Errors end with their code, and `pixelwise check`
    gives each finding one. Without CODE all codes are listed. Words in place of CODE list the codes that are about
    them.

    \b
    Example:
      pixelwise explain PW104
      pixelwise explain licence
    """
    if markdown:
        click.echo(errors_page(), nl=False)
        return
    if code is None:
        every = {each: about.to_dict() for each, about in codes().items()}
        click.echo(json.dumps(every, indent=2) if as_json else list_text(codes()))
        return
    known = code.upper()
    if known not in codes():
        about = codes_about(code)
        if about:
            click.echo(list_text(about))
            return
        near = [f"  {each}  {codes()[each].what}" for each in near_codes(code)]
        meant = "\n".join([" Near to it:", *near]) if near else ""
        raise click.UsageError(f"There is no code {code}. `pixelwise explain` lists all.{meant}")
    if as_json:
        click.echo(json.dumps({"code": known, **codes()[known].to_dict()}, indent=2))
    else:
        click.echo(code_text(known))
