"""Ed25519 keys: made once, never replaced, named by the hash of their public half."""

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.core.atomic import create_bytes
from expunge.core.errors import ExpungeError
from expunge.core.extras import require
from expunge.core.limits import KEY_BYTES
from expunge.report.certificate.reading import Unreadable, contents

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

EXTRA = "sign"
PRIVATE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, ready to sign.

    Attributes:
        private: The key; it shows nothing of itself when printed.
        public: The 32 bytes of its public half.
    """

    private: "Ed25519PrivateKey"
    public: bytes

    @property
    def id(self) -> str:
        """The name of the key."""
        return key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of a signature."""
        return self.private.sign(message)


def key_id(public: bytes) -> str:
    """SHA-256 of the raw public key, hexadecimal."""
    return hashlib.sha256(public).hexdigest()


def public_path(path: str | Path) -> Path:
    """Where the public half of a new key is written.

    Example:
        >>> public_path("office.pem").name, public_path("office").name
        ('office.pub.pem', 'office.pub.pem')
    """
    path = Path(path)
    return path.with_name(f"{path.name.removesuffix('.pem')}.pub.pem")


def new_key(path: str | Path, passphrase: str = "") -> SigningKey:
    """Make a key pair: ``path`` for its owner alone, the public half beside it.

    Args:
        path: File of the private key.
        passphrase: Encrypts the private key; empty leaves it in the clear.

    Raises:
        ExpungeError: ``E-KEY-002`` when one of the files is there already, ``E-REQ-001`` without
            the package that makes keys.
    """
    require("cryptography", extra=EXTRA)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path, beside = Path(path), public_path(path)
    for taken in (path, beside):
        if taken.is_symlink() or taken.exists():
            raise _exists(taken)
    key = Ed25519PrivateKey.generate()
    lock = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, lock)
    public = key.public_key().public_bytes(
        encoding, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # the public half first: left alone by a crash, it can be thrown away without a second thought
    for file, data, mode in ((beside, public, 0o644), (path, private, PRIVATE_MODE)):
        try:
            create_bytes(file, data, mode)
        except FileExistsError as error:  # somebody was faster
            raise _exists(file) from error
    return SigningKey(key, key.public_key().public_bytes_raw())


def signing_key(path: str | Path, passphrase: str = "") -> SigningKey:
    """Read a private key.

    Args:
        path: A PEM file that only its owner can read.
        passphrase: Opens it, if it is encrypted.

    Raises:
        ExpungeError: ``E-KEY-001`` when it is none that can be used, ``E-KEY-003`` when others
            can read it, ``E-REQ-001`` without the package that reads it.
    """
    require("cryptography", extra=EXTRA)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = Path(path)
    data = _pem(path, "a private key")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise _open_to_others(path)
    try:
        key = load_pem_private_key(data, passphrase.encode() if passphrase else None)
    except TypeError as error:
        if not passphrase:
            raise _no_key(path, "it is encrypted, and no passphrase was given") from error
        return signing_key(path)  # a passphrase is set, but this key needs none
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "no private key could be read from it") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "it holds a key of another kind")
    return SigningKey(key, key.public_key().public_bytes_raw())


def public_key(path: str | Path) -> bytes:
    """The 32 bytes of a public key.

    Raises:
        ExpungeError: ``E-KEY-001`` when the file holds none, ``E-REQ-001`` without the package
            that reads it.
    """
    require("cryptography", extra=EXTRA)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    path = Path(path)
    data = _pem(path, "a public key")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        is_private = b"PRIVATE KEY" in data
        why = "it is the private key" if is_private else "no public key could be read from it"
        raise _no_key(path, why) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "it holds a key of another kind")
    return key.public_bytes_raw()


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is that of the key's owner for ``message``.

    Raises:
        ExpungeError: ``E-REQ-001`` without the package that checks it.
    """
    require("cryptography", extra=EXTRA)
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _pem(path: Path, what: str) -> bytes:
    try:
        return contents(path, KEY_BYTES)
    except Unreadable as error:
        raise ExpungeError(
            "E-KEY-001",
            f"{path} as {what}: {error}.",
            f"{what} as a PEM file.",
            "Check the path; expunge sign --new-key FILE makes a key pair.",
        ) from error


def _no_key(path: Path, why: str) -> ExpungeError:
    return ExpungeError(
        "E-KEY-001",
        f"{path} cannot be used: {why}.",
        "an Ed25519 key as a PEM file: the private one to sign, the public one to verify.",
        "Check the path and the passphrase (EXPUNGE_KEY_PASSPHRASE in the environment).",
    )


def _exists(path: Path) -> ExpungeError:
    return ExpungeError(
        "E-KEY-002",
        f"{path} exists already.",
        "a new name: a key is never replaced.",
        "Sign with it by --key, or name another file.",
    )


def _open_to_others(path: Path) -> ExpungeError:
    return ExpungeError(
        "E-KEY-003",
        f"{path} can be read by others than its owner.",
        "a private key for its owner alone (mode 600).",
        f"Run chmod 600 {path}; if others may have read it, make a new key.",
    )
