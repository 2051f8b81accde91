"""``expunge verify``: check a certificate, or a change against its own hashes, offline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from expunge.cli.output import Answer, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from expunge.report.certificate import Verified


@command
def verify(
    folder: Annotated[
        Path, Argument(metavar="DIR", help="Folder of an audit that was signed, or of a change.")
    ],
    *,
    key: Annotated[
        Path | None,
        Option("--key", metavar="FILE", help="Public key (PEM) that must have signed it."),
    ] = None,
    model: Annotated[
        Path | None,
        Option("--model", metavar="DIR", help="The model [where the audit found it]."),
    ] = None,
    require_model: Annotated[
        bool, Option("--require-model", help="Refuse when the model is not at hand.")
    ] = False,
    certificate: Annotated[
        Path | None,
        Option("--certificate", metavar="FILE", help="The certificate [certificate.json in DIR]."),
    ] = None,
    log: Annotated[
        Path | None, Option("--log", metavar="FILE", help="Log that must contain it.")
    ] = None,
    head: Annotated[
        str | None,
        Option("--head", metavar="HASH", help="Head of the log that must still be in it."),
    ] = None,
) -> Answer:
    """Check that a certificate, its audit and its model are what was signed.

    Of a change without a certificate, check weights and run-time parts against its own hashes; of
    an exact method's ensemble also that nothing it serves has met a deleted row.
    """
    from expunge.report.certificate import verify as run

    asked = (key, model, require_model, certificate, log, head)
    if not any(asked) and _is_change(folder):
        return _of_change(folder)
    found = run(
        folder,
        key=key,
        model=model,
        require_model=require_model,
        certificate=certificate,
        log=log,
        head=head,
    )
    return Answer(value=found.as_dict(), show=lambda: _told(found))


def _is_change(folder: Path) -> bool:
    from expunge.lm.folder_problems import CHANGE
    from expunge.report.certificate.folder import CERTIFICATE

    return (folder / CHANGE).is_file() and not (folder / CERTIFICATE).is_file()


def _of_change(folder: Path) -> Answer:
    from expunge.cli.facts import facts
    from expunge.engine.verified import verify_change

    value = verify_change(folder)
    shown = {**value, **{f"proof: {name}": what for name, what in (value["proof"] or {}).items()}}
    del shown["proof"]
    return Answer(value=value, show=lambda: facts(shown))


def _told(found: "Verified") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from expunge.cli.facts import facts

    value = found.as_dict()
    notes = value.pop("notes")
    return Group(
        Text(f"The certificate verifies. The verdict it states: {value['verdict']}."),
        "",
        facts(value),
        *(Text(f"\n{note}") for note in notes),
    )
