"""The envelope (DSSE) around a statement: the bytes that are signed, by whom, and the signature.

The file is the canonical JSON of the envelope and a line end, and its binary parts are the only
base64 spelling of themselves. So there is one file for one signature, and no byte of it that could
be changed unseen.
"""

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expunge.core.canonical import canonical
from expunge.core.errors import ExpungeError
from expunge.report.certificate.keys import SigningKey, key_id, verifies
from expunge.report.certificate.reading import HEX, Unreadable, strict

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PUBLIC_BYTES, SIGNATURE_BYTES = 32, 64
AGAIN = "Do not rely on it; get the certificate again from whoever issued it."


class _Signature(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    keyid: Annotated[str, Field(pattern=f"^{HEX}$")]
    publicKey: str
    sig: str


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    payload: str
    payloadType: str
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=1)]


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope whose signature verifies under the key it carries.

    Attributes:
        payload: The signed bytes.
        public: The key, 32 bytes. Whose it is, the envelope cannot say.
    """

    payload: bytes
    public: bytes

    @property
    def keyid(self) -> str:
        """The name of the key."""
        return key_id(self.public)


def seal(payload: bytes, key: SigningKey) -> bytes:
    """The file that holds ``payload``, signed."""
    signature = {
        "keyid": key.id,
        "publicKey": b64encode(key.public).decode(),
        "sig": b64encode(key.sign(authenticated(payload))).decode(),
    }
    return _spelled(
        {
            "payload": b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [signature],
        }
    )


def open_envelope(data: bytes) -> Sealed:
    """Read the file of a certificate and check its signature under the key it carries.

    Raises:
        ExpungeError: ``E-CERT-001`` to ``E-CERT-004``: the file is no certificate or not whole,
            has a field too many or too few, is of another format, or its signature fails.
    """
    value = read_strictly(data)
    try:
        envelope = _Envelope.model_validate(value)
    except ValidationError as error:
        raise unfitting(error, "The certificate") from error
    if data != _spelled(value):
        raise misspelt("it is not spelt as certificates are (canonical JSON and a line end)")
    if envelope.payloadType != PAYLOAD_TYPE:
        raise other_format(envelope.payloadType, PAYLOAD_TYPE)
    (signature,) = envelope.signatures
    payload, public = _bytes(envelope.payload), _bytes(signature.publicKey)
    signed = _bytes(signature.sig)
    if len(public) != PUBLIC_BYTES or len(signed) != SIGNATURE_BYTES:
        raise misspelt("its key or its signature has not the length of one")
    if key_id(public) != signature.keyid:
        raise not_signed("its key has another id than it names")
    if not verifies(public, signed, authenticated(payload)):
        raise not_signed("its signature does not fit what it says")
    return Sealed(payload, public)


def authenticated(payload: bytes) -> bytes:
    """What is signed: the type and the payload, each with its length (DSSE's PAE)."""
    return b"DSSEv1 %d %s %d %s" % (
        len(PAYLOAD_TYPE),
        PAYLOAD_TYPE.encode(),
        len(payload),
        payload,
    )


def read_strictly(data: bytes) -> Any:
    """The JSON value of a part of a certificate.

    Raises:
        ExpungeError: ``E-CERT-001``.
    """
    try:
        return strict(data)
    except Unreadable as error:
        raise misspelt(str(error)) from error


def misspelt(why: str) -> ExpungeError:
    """``E-CERT-001``."""
    return ExpungeError(
        "E-CERT-001",
        f"The certificate cannot be read: {why}.",
        "the whole file as it was issued, byte for byte.",
        AGAIN,
    )


def unfitting(error: ValidationError, what: str) -> ExpungeError:
    """``E-CERT-002`` with the first field that does not fit."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "the whole value"
    return ExpungeError(
        "E-CERT-002",
        f"{what} does not fit its format at {place[:200]}: {first['msg']}.",
        "every field of the format, and no other.",
        AGAIN,
    )


def other_format(found: object, expected: str) -> ExpungeError:
    """``E-CERT-003``."""
    return ExpungeError(
        "E-CERT-003",
        f"The certificate has the format {str(found)[:100]!r}.",
        f"{expected!r}.",
        "Use a version of expunge that knows this format; older formats are not accepted.",
    )


def not_signed(why: str) -> ExpungeError:
    """``E-CERT-004``."""
    return ExpungeError(
        "E-CERT-004",
        f"The signature does not verify: {why}.",
        "a signature over exactly what the certificate says.",
        AGAIN,
    )


def _spelled(value: Any) -> bytes:
    try:
        return canonical(value) + b"\n"
    except ExpungeError as error:  # half of a surrogate pair
        raise misspelt("it has text that is not Unicode") from error


def _bytes(text: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise misspelt("a part of it is not base64") from error
    if b64encode(data).decode() != text:
        raise misspelt("a part of it is base64 in another spelling")
    return data
