"""The certificate of an audit: a signed statement of what was found, which anybody can verify.

It is an in-toto statement in a DSSE envelope, signed with Ed25519. It holds conclusions and
digests, and nothing of the rows. Nothing here loads a model or uses the network.
"""

from expunge.report.certificate.keys import SigningKey, new_key, public_path, signing_key
from expunge.report.certificate.sign import Signed, sign
from expunge.report.certificate.statement import schema
from expunge.report.certificate.verify import Verified, read_certificate, verify

__all__ = [
    "Signed",
    "SigningKey",
    "Verified",
    "new_key",
    "public_path",
    "read_certificate",
    "schema",
    "sign",
    "signing_key",
    "verify",
]
