"""``expunge sign`` and ``expunge verify``, as people and scripts meet them."""

import re
import sys
from pathlib import Path

import pytest

from expunge.core.errors import Exit
from expunge.report.certificate import keys

sys.path.append(str(Path(__file__).parents[1] / "report"))
from certificates import Desk, make_desk, public_file, put

LOOSE = re.compile(r"\b(?:erased|guaranteed?)\b", re.IGNORECASE)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = make_desk(tmp_path)
    desk.certificate.unlink()
    return desk


def test_a_key_is_made_an_audit_signed_and_verified(run, desk: Desk, tmp_path: Path) -> None:
    private, log = tmp_path / "office.pem", tmp_path / "log.jsonl"
    signed = run("sign", str(desk.folder), "--new-key", str(private), "--log", str(log), "--json")
    assert signed.code == Exit.DONE
    assert signed.value["public_key"] == str(tmp_path / "office.pub.pem")
    assert signed.value["model_files"] == 4
    head = signed.value["log"]["head"]
    options = ("--key", signed.value["public_key"], "--log", str(log), "--head", head)
    verified = run("verify", str(desk.folder), *options, "--require-model", "--json")
    assert verified.code == Exit.DONE
    assert verified.value["signer"] == "verified"
    assert verified.value["model"] == "weights and files verified"
    assert verified.value["digest"] == signed.value["digest"]
    assert verified.value["keyid"] == signed.value["keyid"]
    assert verified.value["log"] == signed.value["log"]


def test_people_are_told_what_was_not_checked(run, desk: Desk, tmp_path: Path) -> None:
    signed = run("sign", str(desk.folder), "--new-key", str(tmp_path / "k.pem"), "--days", "30")
    assert "verdict" in signed.out
    desk.model.rename(tmp_path / "moved")
    ran = run("verify", str(desk.folder))
    assert ran.code == Exit.DONE
    assert "The certificate verifies. The verdict it states: hidden." in ran.out
    assert re.search(r"signer +not verified", ran.out)
    assert re.search(r"model +not checked", ran.out)
    assert "give the signer's public key by --key" in ran.out
    assert not LOOSE.search(signed.out + ran.out)
    ran = run("verify", str(desk.folder), "--require-model", "--json")
    assert (ran.code, ran.value["error"]["code"]) == (Exit.UNSAFE, "E-CERT-010")
    ran = run("verify", str(desk.folder), "--model", str(tmp_path / "moved"))
    assert "weights and files verified" in ran.out


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("certificate.json", "E-CERT-001"),
        ("audit.json", "E-CERT-007"),
        ("report.html", "E-CERT-007"),
        ("summary.json", "E-CERT-007"),
    ],
)
def test_whatever_was_cut_off_ends_with_3_and_says_which(run, desk: Desk, name, code) -> None:
    desk.sign()
    path = desk.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    ran = run("verify", str(desk.folder), "--json")
    assert (ran.code, ran.value["error"]["code"]) == (Exit.UNSAFE, code)


def test_the_wrong_key_and_the_wrong_model_end_with_3(run, desk: Desk, tmp_path: Path) -> None:
    desk.sign()
    ran = run("verify", str(desk.folder), "--key", str(public_file(tmp_path, 2)), "--json")
    assert (ran.code, ran.value["error"]["code"]) == (Exit.UNSAFE, "E-CERT-005")
    put(desk.model / "tokenizer.json", {})
    ran = run("verify", str(desk.folder), "--json")
    assert (ran.code, ran.value["error"]["code"]) == (Exit.UNSAFE, "E-CERT-009")


def test_one_key_is_needed_to_sign(run, desk: Desk) -> None:
    for options, code in (((), "E-USE-007"), (("--key", "a", "--new-key", "b"), "E-USE-006")):
        ran = run("sign", str(desk.folder), *options, "--json")
        assert (ran.code, ran.value["error"]["code"]) == (Exit.BAD_INPUT, code)


def test_days_are_at_least_one(run, desk: Desk) -> None:
    ran = run("sign", str(desk.folder), "--key", "k", "--days", "0", "--json")
    assert ran.code == Exit.BAD_INPUT


def test_the_passphrase_comes_from_the_environment(run, desk: Desk, tmp_path, monkeypatch) -> None:
    private = str(tmp_path / "k.pem")
    monkeypatch.setenv("EXPUNGE_KEY_PASSPHRASE", "sesame")
    assert run("sign", str(desk.folder), "--new-key", private).code == Exit.DONE
    assert run("sign", str(desk.folder), "--key", private).code == Exit.DONE
    monkeypatch.delenv("EXPUNGE_KEY_PASSPHRASE")
    ran = run("sign", str(desk.folder), "--key", private, "--json")
    assert (ran.code, ran.value["error"]["code"]) == (Exit.BAD_INPUT, "E-KEY-001")
    assert "sesame" not in ran.out + ran.err


def test_without_the_package_both_say_how_to_install_it(
    run, desk: Desk, tmp_path, monkeypatch
) -> None:
    desk.sign()
    keys.new_key(tmp_path / "k.pem")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for line in (("verify",), ("sign", "--key", str(tmp_path / "k.pem"))):
        ran = run(line[0], str(desk.folder), *line[1:], "--json")
        assert (ran.code, ran.value["error"]["code"]) == (Exit.MISSING_REQUIREMENT, "E-REQ-001")
        assert "pip install 'expunge[sign]'" in ran.value["error"]["next"]


def test_the_certificate_and_the_log_can_lie_elsewhere(run, desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "one.json"
    made = ("--new-key", str(tmp_path / "k.pem"), "--out", str(out))
    assert run("sign", str(desk.folder), *made).code == Exit.DONE
    assert run("verify", str(desk.folder), "--json").value["error"]["code"] == "E-DATA-001"
    assert run("verify", str(desk.folder), "--certificate", str(out)).code == Exit.DONE
    ran = run("verify", str(desk.folder), "--certificate", str(out), "--head", "ab", "--json")
    assert (ran.code, ran.value["error"]["code"]) == (Exit.BAD_INPUT, "E-USE-006")
