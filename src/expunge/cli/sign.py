"""``expunge sign``: issue a certificate for a finished audit."""

import os
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from expunge.cli.output import Answer, command
from expunge.core.errors import ExpungeError

PASSPHRASE = "EXPUNGE_KEY_PASSPHRASE"  # noqa: S105
"""Where the passphrase of a private key is looked for: a command line can be read by others."""


Folder = Annotated[Path, Argument(metavar="DIR", help="Folder that expunge audit wrote.")]
Key = Annotated[
    Path | None,
    Option("--key", metavar="FILE", help=f"Private key (PEM); its passphrase: {PASSPHRASE}."),
]
NewKey = Annotated[
    Path | None,
    Option("--new-key", metavar="FILE", help="Make a key pair here first, and sign with it."),
]
Model = Annotated[
    Path | None,
    Option("--model", metavar="DIR", help="The audited model [where the audit found it]."),
]
Days = Annotated[
    int | None,
    Option("--days", metavar="N", min=1, max=36500, help="Expires after so many days [never]."),
]
Log = Annotated[
    Path | None, Option("--log", metavar="FILE", help="Log of certificates to append to.")
]
Out = Annotated[
    Path | None,
    Option("--out", metavar="FILE", help="File to write [certificate.json in DIR]."),
]


@command
def sign(
    folder: Folder,
    *,
    key: Key = None,
    new_key: NewKey = None,
    model: Model = None,
    days: Days = None,
    log: Log = None,
    out: Out = None,
) -> Answer:
    """Sign the result of an audit, so that others can verify it."""
    from expunge.cli.facts import facts
    from expunge.report import certificate

    _one_key(key, new_key)
    passphrase = os.environ.get(PASSPHRASE, "")
    private = (
        certificate.new_key(new_key, passphrase)
        if new_key is not None
        else certificate.signing_key(key or "", passphrase)
    )
    done = certificate.sign(folder, private, model=model, days=days, log=log, out=out)
    value: dict[str, Any] = done.as_dict()
    value["public_key"] = None if new_key is None else str(certificate.public_path(new_key))
    return Answer(value=value, show=lambda: facts(value))


def _one_key(key: Path | None, new_key: Path | None) -> None:
    if (key is None) == (new_key is None):
        raise ExpungeError(
            "E-USE-007" if key is None else "E-USE-006",
            "Neither --key nor --new-key." if key is None else "Both --key and --new-key.",
            "one private key to sign with.",
            "Give --key FILE, or --new-key FILE to make one.",
        )
