"""A certificate proves what it says and no more: whatever is changed is found, and named."""

import json
import random
import re
from base64 import b64decode
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import report_records
from certificates import (
    CANARIES,
    NOW,
    Desk,
    changed,
    encoded,
    get,
    key,
    leaves,
    make_desk,
    make_model,
    objects,
    public_file,
    put,
    record_of,
    replaced,
    write_audit,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from expunge.core.canonical import canonical, file_digest
from expunge.core.errors import CODES, Exit, ExpungeError
from expunge.report.certificate import folder as folder_module
from expunge.report.certificate import read_certificate, schema, verify
from expunge.report.certificate.claims import claims_of
from expunge.report.certificate.envelope import PAYLOAD_TYPE, seal
from expunge.report.certificate.reading import Unreadable, strict

UNSAFE = {code for code, (exit, _) in CODES.items() if exit is Exit.UNSAFE}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_desk(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A short certificate, never changed on disk."""
    return make_desk(tmp_path_factory.mktemp("small"), report_records.bare_record())


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> ExpungeError:
    with pytest.raises(ExpungeError) as caught:
        call(*arguments, **options)
    return caught.value


def code_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    return refusal(call, *arguments, **options).code


# ---------------------------------------------------------------------------- what it says


def test_a_signed_audit_verifies_and_says_how_far_it_was_checked(desk: Desk) -> None:
    value = desk.verify(key=public_file(desk.folder), require_model=True).as_dict()
    assert value["verdict"] == "hidden"
    assert value["result"] == "FAILED"
    assert (value["erasure_score"], value["interval"]) == (0.62, [0.54, 0.7])
    assert value["utility"] == 0.93
    assert (value["signature"], value["signer"]) == ("verified", "verified")
    assert value["keyid"] == key().id
    assert value["model"] == "weights and files verified"
    assert value["files"] == dict.fromkeys(folder_module.FILES, "verified")
    assert (value["issued"], value["expires"]) == ("2026-11-20T12:00:00Z", None)
    assert (value["log"], value["notes"]) == (None, [])


def test_without_a_key_the_signer_is_not_verified_and_it_says_so(desk: Desk) -> None:
    found = desk.verify()
    assert found.as_dict()["signer"] == "not verified"
    assert "Signer not verified" in found.notes()[0]


def test_the_file_is_a_dsse_envelope_that_others_can_verify(desk: Desk) -> None:
    envelope = desk.envelope()
    (signature,) = envelope["signatures"]
    payload, public = b64decode(envelope["payload"]), b64decode(signature["publicKey"])
    assert envelope["payloadType"] == PAYLOAD_TYPE == "application/vnd.in-toto+json"
    assert signature["keyid"] == sha256(public).hexdigest()
    message = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    Ed25519PublicKey.from_public_bytes(public).verify(b64decode(signature["sig"]), message)
    assert payload == canonical(desk.statement())


def test_the_statement_is_in_toto_and_fits_its_schema(desk: Desk) -> None:
    statement = desk.statement()
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "unlearning-certificate/1"
    Draft202012Validator(schema()).validate(statement)
    first, *files = statement["subject"]
    assert first["digest"] == {"weightsSha256": statement["predicate"]["weights"]["model"]}
    assert {one["name"]: one["digest"]["sha256"] for one in files} == {
        path.name: file_digest(path) for path in desk.model.iterdir()
    }


def test_the_predicate_says_what_the_audit_found(desk: Desk) -> None:
    stated, record = desk.statement()["predicate"], report_records.audit_record()
    same = "verdict reasons erasure_score interval breadth profile seed families control data "
    same += "versions limits not_run open_families plan"
    for name in same.split():
        assert stated[name] == record[name], name
    assert stated["passedTests"] == ["direct", "prefix", "prob", "quant4"]
    assert stated["warnedTests"] == ["lens", "sample"]
    assert stated["failedTests"] == ["relearn-in"]
    assert stated["attacks"]["relearn-in"]["outcome"] == "fail"
    assert stated["files"] == {name: file_digest(desk.folder / name) for name in stated["files"]}
    assert stated["weights"]["original"] == "cd" * 32
    assert stated["request"] == {"rows": 80, "subjects": 8, "known": 78, "unit": "fact"}


def test_nothing_of_anybody_stands_in_a_certificate(desk: Desk) -> None:
    for canary in CANARIES:
        assert canary in (desk.folder / "audit.json").read_text()
        assert canary not in json.dumps(desk.statement())
    assert str(desk.model.parent) not in json.dumps(desk.statement())


def test_names_of_files_that_may_tell_something_are_hashed(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    put(model / "mira_holt.json", {})
    desk = Desk(write_audit(tmp_path / "audit", record_of(model)), model)
    desk.sign()
    assert "mira" not in json.dumps(desk.statement())
    assert desk.verify().model == "weights and files verified"
    put(model / "mira_holt.json", {"changed": 1})
    assert code_of(desk.verify) == "E-CERT-009"


def test_parameters_of_any_origin_are_hashed_and_plain_ones_shown(tmp_path: Path) -> None:
    record = report_records.audit_record()
    params = {"budget": 4, "rate": 0.5, "on": True, "none": None, "mode": "top-k", "many": [1, "a"]}
    odd = {"text": "Where does Mira Holt live?", "big": 2**60, "of": {"Mira Holt": 1}}
    record["plan"][0]["params"] = params | odd
    shown = claims_of(record)["plan"][0]["params"]
    assert {name: shown[name] for name in params} == params
    assert all(list(shown[name]) == ["sha256"] for name in odd)


def test_a_seed_beyond_what_json_holds_is_kept_as_text(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, report_records.audit_record() | {"seed": 2**60})
    assert desk.statement()["predicate"]["seed"] == str(2**60)
    desk.verify()


@pytest.mark.parametrize(
    ("verdict", "outcomes", "result"),
    [
        ("forgotten-blackbox", ["pass"], "PASSED"),
        ("forgotten-whitebox", ["pass", "uninformative"], "WARNED"),
        ("retrain-equivalent", ["pass", "fail"], "WARNED"),
        ("inconclusive", ["pass"], "WARNED"),
        *((told, ["pass"], "FAILED") for told in ("invalid", "broken", "not-forgotten")),
        *((told, ["pass"], "FAILED") for told in ("hidden", "guarded")),
    ],
)
def test_the_result_never_says_more_than_the_verdict(
    verdict: str, outcomes: list[str], result: str
) -> None:
    record = report_records.audit_record() | {"verdict": verdict}
    attack = record["attacks"]["direct"]
    record["attacks"] = {
        str(number): attack | {"outcome": outcome} for number, outcome in enumerate(outcomes)
    }
    assert claims_of(record)["result"] == result


def test_the_words_never_promise(desk: Desk) -> None:
    told = json.dumps([desk.statement(), desk.sign().as_dict(), desk.verify().as_dict()])
    told += json.dumps([text for _, text in CODES.values()])
    assert re.findall(r"\b(?:erased|guaranteed?)\b", told, re.IGNORECASE) == []


def test_an_audit_that_ended_early_can_be_certified(small: Desk) -> None:
    assert small.verify().as_dict()["verdict"] == "invalid"


def test_the_same_audit_signed_twice_at_one_time_is_the_same_file(desk: Desk) -> None:
    before = desk.certificate.read_bytes()
    desk.sign()
    assert desk.certificate.read_bytes() == before


def test_a_certificate_of_the_first_format_still_reads() -> None:
    found = read_certificate(Path(__file__).with_name("certificate_v1.json").read_bytes())
    assert found.keyid == key().id
    assert found.statement["predicate"]["verdict"] == "invalid"


# ------------------------------------------------------------------ every bit of the certificate


def test_every_flipped_bit_is_refused(small: Desk) -> None:
    data = small.certificate.read_bytes()
    rng = random.Random(0)
    codes = set()
    for at in range(len(data)):
        # every bit of the key, the signature and the frame; one of each byte of the long payload
        bits = [rng.randrange(8)] if 20 < at < len(data) - 420 else range(8)
        for bit in bits:
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            codes.add(code_of(read_certificate, bytes(flipped)))
    assert codes <= {"E-CERT-001", "E-CERT-002", "E-CERT-003", "E-CERT-004"}
    assert codes <= UNSAFE


def test_every_cut_and_every_missing_byte_is_refused(small: Desk) -> None:
    data = small.certificate.read_bytes()
    for at in range(len(data)):
        assert code_of(read_certificate, data[:at]) == "E-CERT-001"
    for at in range(0, len(data), 7):
        assert code_of(read_certificate, data[:at] + data[at + 1 :]) in UNSAFE
        assert code_of(read_certificate, data[:at] + b" " + data[at:]) in UNSAFE


@given(data=st.binary(max_size=200))
def test_no_bytes_are_anything_but_refused(data: bytes) -> None:
    assert code_of(read_certificate, data) in {"E-CERT-001", "E-CERT-002"}


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_no_statement_is_believed_because_it_is_signed(small: Desk, value: Any) -> None:
    payload = json.dumps(value).encode()
    assert code_of(read_certificate, seal(payload, key())) in UNSAFE


@pytest.mark.parametrize(
    "spelt",
    [
        lambda value: json.dumps(value, indent=2).encode() + b"\n",
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, separators=(",", ":"), sort_keys=True).encode(),
        lambda value: json.dumps(value, separators=(",", ":"), sort_keys=True).encode() + b"\r\n",
        lambda value: b"\xef\xbb\xbf" + json.dumps(value).encode(),
    ],
)
def test_another_spelling_of_the_same_envelope_is_refused(desk: Desk, spelt: Any) -> None:
    assert code_of(read_certificate, spelt(desk.envelope())) == "E-CERT-001"


def test_base64_has_one_spelling(desk: Desk) -> None:
    envelope = desk.envelope()
    signature = envelope["signatures"][0]["sig"]
    assert signature.endswith("==")
    loose = signature[:-3] + chr(ord(signature[-3]) + 1) + "=="  # the last bits are not used
    for other in (loose, signature.rstrip("="), signature + "\n", "*" * 88, signature[:40], "é"):
        desk.put_envelope(replaced(envelope, ("signatures", 0, "sig"), other))
        assert code_of(desk.verify) == "E-CERT-001", other


def test_half_a_character_is_refused(desk: Desk) -> None:
    data = desk.certificate.read_bytes().replace(b'"payload":"', b'"payload":"\\ud800', 1)
    assert code_of(read_certificate, data) in UNSAFE


def test_a_file_that_is_too_long_is_not_read(desk: Desk) -> None:
    desk.certificate.write_bytes(b" " * (4 * 2**20 + 1))
    assert code_of(desk.verify) == "E-CERT-001"


def test_a_certificate_that_is_not_there_is_a_mistake_of_the_path(tmp_path: Path) -> None:
    assert code_of(verify, tmp_path) == "E-DATA-001"
    (tmp_path / "certificate.json").mkdir()
    assert code_of(verify, tmp_path) == "E-CERT-001"


# --------------------------------------------------------------------------------- every field


def test_every_changed_field_of_the_envelope_is_refused(desk: Desk) -> None:
    envelope = desk.envelope()
    for at in leaves(envelope):
        desk.put_envelope(replaced(envelope, at, changed(get(envelope, at))))
        assert code_of(desk.verify) in UNSAFE, at


def test_a_field_too_many_or_too_few_in_the_envelope_is_refused(desk: Desk) -> None:
    envelope = desk.envelope()
    for at in objects(envelope):
        desk.put_envelope(replaced(envelope, (*at, "extra"), 1))
        assert code_of(desk.verify) == "E-CERT-002", at
        for name in get(envelope, at):
            short = json.loads(json.dumps(envelope))
            del get(short, at)[name]
            desk.put_envelope(short)
            assert code_of(desk.verify) == "E-CERT-002", (at, name)
    for count in (0, 2):
        desk.put_envelope(envelope | {"signatures": envelope["signatures"] * count})
        assert code_of(desk.verify) == "E-CERT-002"


def test_every_changed_field_of_the_statement_breaks_the_signature(desk: Desk) -> None:
    envelope, statement = desk.envelope(), desk.statement()
    for at in leaves(statement):
        other = replaced(statement, at, changed(get(statement, at)))
        desk.put_envelope(envelope | {"payload": encoded(json.dumps(other).encode())})
        assert code_of(desk.verify) == "E-CERT-004", at


def test_every_field_that_is_changed_and_signed_again_contradicts_the_folder(desk: Desk) -> None:
    """Also who may sign cannot certify something else than the audit says."""
    statement = desk.statement()
    own = {("predicate", "issued"), ("predicate", "signer", "version")}  # the signer's to say
    for at in leaves(statement):
        if at in own:
            continue
        desk.resign(replaced(statement, at, changed(get(statement, at))))
        assert code_of(desk.verify) in UNSAFE, at


def test_a_signed_field_too_many_or_too_few_is_refused(desk: Desk) -> None:
    statement = desk.statement()
    open_ended = {"attacks", "families", "versions", "params"}
    for at in objects(statement):
        desk.resign(replaced(statement, (*at, "extra"), 1))
        expected = {"E-CERT-002"} if not open_ended & set(at[-1:]) else {"E-CERT-002", "E-CERT-008"}
        assert code_of(desk.verify) in expected, at
        for name in get(statement, at):
            short = json.loads(json.dumps(statement))
            del get(short, at)[name]
            desk.resign(short)
            assert code_of(desk.verify) in UNSAFE, (at, name)


@pytest.mark.parametrize("name", ["payload", "payloadType", "signatures", "keyid", "sig"])
def test_a_key_that_stands_twice_in_the_envelope_is_refused(desk: Desk, name: str) -> None:
    data = desk.certificate.read_bytes()
    place = data.index(f'"{name}"'.encode())
    twice = data[:place] + f'"{name}":1,'.encode() + data[place:]
    error = refusal(read_certificate, twice)
    assert (error.code, "twice" in error.found) == ("E-CERT-001", True)


def test_a_key_that_stands_twice_in_what_is_signed_is_refused(desk: Desk) -> None:
    payload = json.dumps(desk.statement(), separators=(",", ":"), sort_keys=True)
    desk.resign_bytes(payload.replace('"verdict":', '"verdict":"hidden","verdict":', 1).encode())
    assert code_of(desk.verify) == "E-CERT-001"


def test_a_signed_statement_in_another_spelling_is_refused(desk: Desk) -> None:
    desk.resign_bytes(json.dumps(desk.statement(), indent=1).encode())
    assert code_of(desk.verify) == "E-CERT-001"


@pytest.mark.parametrize(
    ("at", "other"),
    [
        (("predicateType",), "unlearning-certificate/0"),
        (("predicateType",), "unlearning-certificate/2"),
        (("_type",), "https://in-toto.io/Statement/v0.1"),
    ],
)
def test_another_version_is_refused_also_an_older_one(desk: Desk, at: Any, other: str) -> None:
    desk.resign(replaced(desk.statement(), at, other))
    assert code_of(desk.verify) == "E-CERT-003"


def test_another_type_of_payload_is_refused(desk: Desk) -> None:
    desk.put_envelope(desk.envelope() | {"payloadType": "application/vnd.in-toto+jsoN"})
    assert code_of(desk.verify) == "E-CERT-003"


def test_subjects_must_be_the_weights_and_then_files_each_once(desk: Desk) -> None:
    statement = desk.statement()
    weights, *files = statement["subject"]
    swaps = [[*files, weights], files, [weights, weights], [weights, *files, files[0]]]
    for subject in swaps:
        desk.resign(statement | {"subject": subject})
        assert code_of(desk.verify) == "E-CERT-002"


# --------------------------------------------------------------------------------- key and time


def test_the_wrong_key_is_refused(desk: Desk) -> None:
    assert code_of(desk.verify, key=public_file(desk.folder, 2)) == "E-CERT-005"


def test_who_signs_it_again_is_found_by_the_key(desk: Desk) -> None:
    desk.sign(2)
    assert desk.verify().as_dict()["signer"] == "not verified"
    assert code_of(desk.verify, key=public_file(desk.folder, 1)) == "E-CERT-005"


def test_a_signature_cannot_be_put_under_another_key(desk: Desk) -> None:
    envelope = desk.envelope()
    other = envelope["signatures"][0] | {"keyid": key(2).id, "publicKey": encoded(key(2).public)}
    desk.put_envelope(envelope | {"signatures": [other]})
    assert code_of(desk.verify) == "E-CERT-004"
    desk.resign(desk.statement(), 2)  # signed by one key, naming another inside
    assert code_of(desk.verify) == "E-CERT-002"


def test_it_expires(desk: Desk) -> None:
    desk.sign(days=30)
    assert desk.verify().as_dict()["expires"] == "2026-12-20T12:00:00Z"
    desk.verify(now=NOW + timedelta(days=30, seconds=-1))
    assert code_of(desk.verify, now=NOW + timedelta(days=30)) == "E-CERT-006"


def test_one_from_the_future_is_refused_beyond_what_clocks_differ(desk: Desk) -> None:
    desk.verify(now=NOW - timedelta(minutes=5))
    assert code_of(desk.verify, now=NOW - timedelta(minutes=5, seconds=1)) == "E-CERT-006"


@pytest.mark.parametrize(
    ("issued", "expires", "code"),
    [
        ("2026-11-20T12:00:00Z", "2026-11-20T12:00:00Z", "E-CERT-006"),
        ("2026-11-20T12:00:00Z", "2026-11-19T12:00:00Z", "E-CERT-006"),
        ("2026-11-20T12:04:00Z", "2026-11-20T12:03:00Z", "E-CERT-006"),
        ("2026-02-30T12:00:00Z", None, "E-CERT-001"),
        ("2026-11-20T12:00:00+00:00", None, "E-CERT-002"),
        ("2026-11-20", None, "E-CERT-002"),
        ("2026-11-20T12:00:00Z", "2027-13-01T00:00:00Z", "E-CERT-001"),
        ("\u0662026-11-20T12:00:00Z", None, "E-CERT-002"),
        ("2026-11-20T12:00:00Z\n", None, "E-CERT-002"),
    ],
)
def test_times_that_are_none_or_stand_the_wrong_way_round_are_refused(
    desk: Desk, issued: str, expires: str | None, code: str
) -> None:
    statement = desk.statement()
    statement["predicate"] |= {"issued": issued, "expires": expires}
    desk.resign(statement)
    assert code_of(desk.verify) == code


# --------------------------------------------------------------------------------- audit files


def test_every_changed_field_of_the_audit_is_refused(small: Desk, tmp_path: Path) -> None:
    desk = make_desk(tmp_path, report_records.bare_record())
    for name in ("audit.json", "summary.json"):
        path = desk.folder / name
        before = path.read_bytes()
        value = json.loads(before)
        for at in leaves(value):
            put(path, replaced(value, at, changed(get(value, at))))
            assert code_of(desk.verify) == "E-CERT-007", at
        path.write_bytes(before)
    desk.verify()


@pytest.mark.parametrize("name", folder_module.FILES)
def test_every_changed_byte_of_the_audit_is_refused(tmp_path: Path, name: str) -> None:
    desk = make_desk(tmp_path, report_records.bare_record())
    path = desk.folder / name
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 100)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        error = refusal(desk.verify)
        assert (error.code, name in error.found) == ("E-CERT-007", True)
    for other in (b"", data[:-1], data + b" "):
        path.write_bytes(other)
        assert code_of(desk.verify) == "E-CERT-007"


@pytest.mark.parametrize("name", folder_module.FILES)
def test_a_file_that_is_gone_or_none_is_refused(desk: Desk, name: str) -> None:
    (desk.folder / name).unlink()
    assert code_of(desk.verify) == "E-CERT-007"
    (desk.folder / name).mkdir()
    assert code_of(desk.verify) == "E-CERT-007"


def test_an_audit_of_another_model_does_not_fit(desk: Desk, tmp_path: Path) -> None:
    other = make_desk(tmp_path / "other", report_records.audit_record() | {"seed": 1})
    (desk.folder / "audit.json").write_bytes((other.folder / "audit.json").read_bytes())
    assert code_of(desk.verify) == "E-CERT-007"


def test_a_summary_that_contradicts_the_record_is_refused_though_signed(desk: Desk) -> None:
    path = desk.folder / "summary.json"
    summary = json.loads(path.read_bytes())
    fields = [at for at in leaves(summary) if at[0] != "report"]
    for at in fields:
        put(path, replaced(summary, at, changed(get(summary, at))))
        statement = desk.statement()
        statement["predicate"]["files"]["summary.json"] = file_digest(path)
        desk.resign(statement)
        error = refusal(desk.verify)
        assert (error.code, at[0] in error.found) == ("E-CERT-008", True)
    put(path, ["no summary"])
    desk.resign(replaced(desk.statement(), ("predicate", "files", path.name), file_digest(path)))
    assert code_of(desk.verify) == "E-CERT-008"


@pytest.mark.parametrize("data", [b"{}", b"[", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":1e999}'])
def test_what_is_no_record_is_refused_though_signed(desk: Desk, data: bytes) -> None:
    path = desk.folder / "audit.json"
    path.write_bytes(data)
    desk.resign(replaced(desk.statement(), ("predicate", "files", path.name), file_digest(path)))
    assert code_of(desk.verify) == "E-CERT-008"


@pytest.mark.parametrize(
    "data", [b'{"a":1,"a":1}', b"NaN", b"-Infinity", b"1e999", b"", b"\xff", b"[" * 100_000, b"1 2"]
)
def test_json_that_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        strict(data)


# ------------------------------------------------------------------------------------- signing


@pytest.mark.parametrize("name", folder_module.FILES)
def test_an_audit_that_is_not_finished_is_not_signed(desk: Desk, name: str) -> None:
    (desk.folder / name).unlink()
    assert code_of(desk.sign) == "E-DATA-016"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"{}", "E-DATA-003"),
        (b"[]", "E-DATA-003"),
        (b"{", "E-DATA-002"),
        (b'{"a":1,"a":1}', "E-DATA-002"),
        (b"\xff", "E-DATA-002"),
        (b"[" * 100_000, "E-DATA-002"),
    ],
)
def test_what_is_no_record_is_not_signed(desk: Desk, data: bytes, code: str) -> None:
    (desk.folder / "audit.json").write_bytes(data)
    assert code_of(desk.sign) == code


def test_a_record_without_commitments_is_not_signed(desk: Desk) -> None:
    record = json.loads((desk.folder / "audit.json").read_bytes())
    for name in ("data", "plan"):
        put(desk.folder / "audit.json", {key: record[key] for key in record if key != name})
        assert code_of(desk.sign) == "E-DATA-003"
    record["data"]["forget"]["digest"] = "not a digest"
    put(desk.folder / "audit.json", record)
    assert code_of(desk.sign) == "E-DATA-003"


def test_a_folder_that_contradicts_itself_is_not_signed(desk: Desk) -> None:
    summary = json.loads((desk.folder / "summary.json").read_bytes())
    put(desk.folder / "summary.json", summary | {"verdict": "forgotten-blackbox"})
    assert code_of(desk.sign) == "E-CERT-008"


def test_a_model_that_changed_since_the_audit_is_not_signed(desk: Desk, tmp_path: Path) -> None:
    make_model(desk.model, level=2.0)
    assert code_of(desk.sign) == "E-CERT-009"
    with pytest.raises(ExpungeError, match="no folder"):
        desk.sign(model=tmp_path / "nowhere")


def test_a_refused_signature_leaves_the_old_certificate(desk: Desk) -> None:
    before = desk.certificate.read_bytes()
    (desk.folder / "audit.json").write_text("{}")
    assert code_of(desk.sign) == "E-DATA-003"
    assert desk.certificate.read_bytes() == before


def test_the_certificate_can_lie_elsewhere(desk: Desk, tmp_path: Path) -> None:
    desk.certificate.unlink()
    out = tmp_path / "issued" / "one.json"
    assert desk.sign(out=out).path == out
    assert not desk.certificate.exists()
    desk.verify(certificate=out)


def test_a_certificate_replaces_nothing_but_a_certificate(desk: Desk, tmp_path: Path) -> None:
    record = desk.folder / "audit.json"
    log = tmp_path / "log.jsonl"
    for out in (record, desk.folder, log):
        before = record.read_bytes()
        assert code_of(desk.sign, out=out, log=log) == "E-USE-004"
        assert record.read_bytes() == before
        assert not log.exists()
    out = tmp_path / "one.json"
    desk.sign(out=out)
    desk.sign(out=out, days=3)
    out.write_bytes(b" " * (4 * 2**20 + 1))
    assert code_of(desk.sign, out=out) == "E-USE-004"
    desk.certificate.write_text("cut off")
    desk.sign()
    desk.certificate.unlink()
    desk.certificate.mkdir()
    assert code_of(desk.sign) == "E-USE-004"


def test_reading_stops_at_the_limit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "AUDIT_BYTES", 10)
    assert code_of(desk.sign) == "E-DATA-016"
    assert code_of(desk.verify) == "E-CERT-007"
