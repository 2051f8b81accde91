"""Keys: made once, for their owner alone, never replaced; what is none is refused by name."""

import os
import stat
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from certificates import key, public_file
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from expunge.core.errors import Exit, ExpungeError
from expunge.report.certificate import keys


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def code_of(work, *arguments) -> str:
    with pytest.raises(ExpungeError) as caught:
        work(*arguments)
    return caught.value.code


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_private_key_is_its_owners_alone_whatever_the_umask(tmp_path, umask) -> None:
    before = os.umask(umask)
    try:
        made = keys.new_key(tmp_path / "keys" / "office.pem")
    finally:
        os.umask(before)
    assert mode(tmp_path / "keys" / "office.pem") == 0o600
    assert mode(tmp_path / "keys" / "office.pub.pem") == 0o644 & ~umask
    assert sorted(os.listdir(tmp_path / "keys")) == ["office.pem", "office.pub.pem"]
    assert keys.signing_key(tmp_path / "keys" / "office.pem").id == made.id
    assert keys.public_key(tmp_path / "keys" / "office.pub.pem") == made.public


def test_two_new_keys_differ_and_are_named_by_their_public_half(tmp_path) -> None:
    one, two = keys.new_key(tmp_path / "1.pem"), keys.new_key(tmp_path / "2.pem")
    assert one.id != two.id
    assert one.id == sha256(one.public).hexdigest()
    assert "PRIVATE" not in repr(one)


@pytest.mark.parametrize("taken", ["office.pem", "office.pub.pem"])
def test_a_key_is_never_replaced(tmp_path, taken) -> None:
    (tmp_path / taken).write_text("mine")
    assert code_of(keys.new_key, tmp_path / "office.pem") == "E-KEY-002"
    assert (tmp_path / taken).read_text() == "mine"
    assert os.listdir(tmp_path) == [taken]


def test_a_dangling_link_counts_as_taken(tmp_path) -> None:
    (tmp_path / "office.pem").symlink_to(tmp_path / "nowhere")
    assert code_of(keys.new_key, tmp_path / "office.pem") == "E-KEY-002"
    assert os.listdir(tmp_path) == ["office.pem"]


def test_who_comes_second_of_two_at_a_time_loses(tmp_path, monkeypatch) -> None:
    def taken(*_: object) -> None:
        raise FileExistsError

    monkeypatch.setattr(keys, "create_bytes", taken)
    assert code_of(keys.new_key, tmp_path / "office.pem") == "E-KEY-002"


def test_a_passphrase_locks_the_private_key(tmp_path) -> None:
    path = tmp_path / "office.pem"
    made = keys.new_key(path, "sesame")
    assert b"ENCRYPTED" in path.read_bytes()
    assert keys.signing_key(path, "sesame").id == made.id
    assert code_of(keys.signing_key, path, "wrong") == "E-KEY-001"
    assert code_of(keys.signing_key, path) == "E-KEY-001"


def test_a_passphrase_that_is_not_needed_does_no_harm(tmp_path) -> None:
    made = keys.new_key(tmp_path / "office.pem")
    assert keys.signing_key(tmp_path / "office.pem", "sesame").id == made.id


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660])
def test_a_private_key_that_others_can_read_is_refused(tmp_path, bits) -> None:
    keys.new_key(tmp_path / "office.pem")
    os.chmod(tmp_path / "office.pem", bits)
    with pytest.raises(ExpungeError) as caught:
        keys.signing_key(tmp_path / "office.pem")
    assert (caught.value.code, caught.value.exit_code) == ("E-KEY-003", Exit.UNSAFE)


def test_what_is_no_key_is_refused(tmp_path) -> None:
    for data in (b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        path = tmp_path / "x.pem"
        path.write_bytes(data)
        path.chmod(0o600)
        assert code_of(keys.signing_key, path) == "E-KEY-001"
        assert code_of(keys.public_key, path) == "E-KEY-001"
    path.write_bytes(b"x" * (64 * 1024 + 1))
    for missing in (path, tmp_path / "missing", tmp_path):
        assert code_of(keys.signing_key, missing) == "E-KEY-001"
        assert code_of(keys.public_key, missing) == "E-KEY-001"


def test_keys_of_another_kind_are_refused(tmp_path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "a.pem", tmp_path / "a.pub.pem"
    private.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(
        other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert code_of(keys.signing_key, private) == "E-KEY-001"
    assert code_of(keys.public_key, public) == "E-KEY-001"


def test_the_private_key_in_place_of_the_public_one_is_named(tmp_path) -> None:
    keys.new_key(tmp_path / "office.pem")
    with pytest.raises(ExpungeError, match="it is the private key"):
        keys.public_key(tmp_path / "office.pem")


def test_a_signature_is_that_of_the_standard(tmp_path) -> None:
    """RFC 8032, test 2 of section 7.1."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    made = keys.SigningKey(private, private.public_key().public_bytes_raw())
    signature = made.sign(b"\x72")
    assert signature.hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert keys.verifies(made.public, signature, b"\x72")
    assert not keys.verifies(made.public, signature, b"\x73")
    assert not keys.verifies(b"\xff" * 32, signature, b"\x72")
    high = (
        int.from_bytes(signature[32:], "little") + 2**252 + 27742317777372353535851937790883648493
    )
    again = signature[:32] + high.to_bytes(32, "little")  # the same point, a second spelling
    assert not keys.verifies(made.public, again, b"\x72")


def test_without_the_package_the_error_says_how_to_install_it(tmp_path, monkeypatch) -> None:
    public = public_file(tmp_path)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for work, path in ((keys.new_key, tmp_path / "a"), (keys.public_key, public)):
        with pytest.raises(ExpungeError) as caught:
            work(path)
        assert (caught.value.code, caught.value.exit_code) == ("E-REQ-001", 4)
        assert "pip install 'expunge[sign]'" in caught.value.next
    assert code_of(keys.signing_key, tmp_path / "a") == "E-REQ-001"
    assert code_of(keys.verifies, key().public, b"", b"") == "E-REQ-001"
