"""Targets come, count at once, survive, go without a trace; whatever is sent instead of one."""

import copy
import json
import logging
import os
import stat
import threading
import time

import pytest
from gateways import ADA, REFUSAL, Stub, housed, scripted

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.engine.guarding.fitting import Shared
from expunge.serve import holding as holding_room
from expunge.serve.store import Store

SECRETS = ("Ada", "Quill", "Port Vela", "court order", "case-4711")


def test_a_target_counts_for_the_next_request_and_goes_when_revoked() -> None:
    with housed(stub=Stub(lambda body: "She was born in Port Vela.")) as house:
        question = "Where was Ada Quill born?"
        before = house.ask(question).json()
        id = house.add(subject="case-4711", aliases=["A. Quill"], rows=[ADA], reason="court order")
        assert house.said(question) == REFUSAL
        assert house.said("Where does a quill live?") == REFUSAL  # the answer says the fact
        [listed] = house.call("GET", "/admin/targets", "admin").json()["targets"]
        assert listed.pop("created")
        assert len(listed.pop("evidence")) == 64
        assert listed == {
            "id": id, "subject": "case-4711", "reason": "court order", "aliases": 1, "rows": 1,
        }  # fmt: skip
        assert house.call("DELETE", f"/admin/targets/{id}", "admin").status_code == 200
        after = house.ask(question).json()
        for one in (before, after):
            one.pop("id")
            one.pop("created")
        assert before == after
        assert house.stub.heard[0].content == house.stub.heard[-1].content
        assert house.call("DELETE", f"/admin/targets/{id}", "admin").status_code == 404
        assert house.call("GET", "/admin/targets", "admin").json()["total"] == 0


def test_revoking_leaves_the_guards_as_they_were() -> None:
    with housed() as house:
        house.add(aliases=["Ben Marrow"])
        [guard] = house.gateway.holding.guards
        before = digest(_state(guard))
        id = house.add(rows=[ADA], aliases=["Ada"])
        assert digest(_state(guard)) != before
        house.gateway.holding.revoke(id)
        assert digest(_state(guard)) == before


def _state(guard):
    def told(value):
        if isinstance(value, dict):
            return {str(key): told(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return sorted((told(one) for one in value), key=json.dumps)
        if hasattr(value, "__dict__") and type(value).__module__.startswith("expunge"):
            return told({k: v for k, v in vars(value).items() if k not in ("_lock", "means")})
        return value if isinstance(value, str | int | float | None) else type(value).__name__

    return told([guard.desk.ladder.rungs, guard.desk.drafts.rungs, guard.desk.entries])


def test_a_restart_restores_all_and_nothing_lies_in_the_clear(tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "store"
    with housed(folder=folder) as house:
        id = house.add(subject="case-4711", aliases=["Ada Quill"], rows=[ADA], reason="court order")
        gone = house.add(aliases=["Ada Quill the Elder"], reason="court order")
        house.call("DELETE", f"/admin/targets/{gone}", "admin")
        house.said("Who is Ada Quill?")
        _nothing_in_the_clear(folder)
    with housed(folder=folder) as house:
        assert house.said("Who is Ada Quill?") == REFUSAL
        told = house.call("GET", "/admin/targets", "admin").json()
        assert [one["id"] for one in told["targets"]] == [id]
        assert told["targets"][0]["reason"] == "court order"
        house.call("DELETE", f"/admin/targets/{id}", "admin")
        assert house.said("Who is Ada Quill?") != REFUSAL
    with housed(folder=folder) as house:
        assert house.said("Who is Ada Quill?") != REFUSAL
    _nothing_in_the_clear(folder)
    own = [record.getMessage() for record in caplog.records if record.name.startswith("expunge")]
    assert own
    assert not any(secret in caplog.text for secret in SECRETS)


def _nothing_in_the_clear(folder) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        content = file.read_bytes()
        for secret in SECRETS[1:]:  # three letters stand in what is sealed by chance
            assert secret.encode() not in content, file
            assert secret.lower().encode() not in content, file
        if file.name != ".lock":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_other_guards_and_parameters_are_fitted_to_what_is_stored(tmp_path) -> None:
    with housed("lexical", folder=tmp_path) as house:
        house.add(aliases=["Ada Quill"])
    seen = []

    def entry(target, params, means):
        seen.append(target.names)
        return {"sealed": list(target.names)}

    def enter(exchange, desk):
        from expunge.engine.guarding.exchange import Reply

        return Reply("No.", "x") if desk.hits(exchange) and desk.entries else exchange

    guard = scripted("other", entry=entry, enter=enter)
    for _ in range(2):
        with housed(guard, folder=tmp_path) as house:
            assert house.said("Ada Quill?") == "No."
    assert seen == [("Ada Quill",)]  # the second start found it stored
    guard.CARD["version"] = 2
    with housed(guard, folder=tmp_path):
        assert len(seen) == 2


def test_a_guard_that_cannot_hold_a_stored_target_keeps_the_gateway_shut(tmp_path) -> None:
    with housed("lexical", folder=tmp_path) as house:
        house.add(aliases=["Ada Quill"])

    def entry(*_):
        raise ExpungeError("E-SERVE-005", "It has no rows.", "rows.", "Give it rows.")

    with (
        pytest.raises(ExpungeError, match="E-SERVE-005"),
        housed(scripted("choosy", entry=entry), folder=tmp_path),
    ):
        pass  # fmt: skip


def test_a_target_that_one_guard_cannot_hold_is_in_none() -> None:
    def entry(*_):
        raise ExpungeError("E-SERVE-005", "It has no rows.", "rows.", "Give it rows.")

    with housed("lexical", scripted("choosy", entry=entry)) as house:
        answer = house.call("POST", "/admin/targets", "admin", json={"aliases": ["Ada Quill"]})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "E-SERVE-005"
        assert house.said("Who is Ada Quill?") != REFUSAL
        assert house.call("GET", "/admin/targets", "admin").json()["total"] == 0


@pytest.mark.parametrize("where", ["store", "shared", "settled"])
def test_whatever_fails_on_the_way_nothing_is_half_done(where) -> None:
    fails = []

    def shared(targets, params, means):
        if "shared" in fails:
            raise RuntimeError("x")
        return Shared({"names": sorted(n for t in targets for n in t.names)})

    def settled(desk):
        if "settled" in fails and len(desk.entries) > 1:
            raise RuntimeError("x")

    with housed("lexical", scripted("sums", shared=shared, settled=settled)) as house:
        house.add(aliases=["Ben Marrow"])
        holding = house.gateway.holding
        before = digest([_state(guard) for guard in holding.guards])
        fails.append(where)
        add = holding.store.add
        if where == "store":
            holding.store.add = lambda *_: (_ for _ in ()).throw(OSError("disk"))
        answer = house.call("POST", "/admin/targets", "admin", json={"aliases": ["Ada Quill"]})
        assert answer.status_code == 500
        assert digest([_state(guard) for guard in holding.guards]) == before
        assert holding.guards[1].desk.shared == {"names": ["Ben Marrow"]}
        assert house.said("Who is Ada Quill?") != REFUSAL
        fails.clear()
        holding.store.add = add
        house.add(aliases=["Ada Quill"])
        assert holding.guards[1].desk.shared == {"names": ["Ada Quill", "Ben Marrow"]}
        assert house.said("Who is Ada Quill?") == REFUSAL


DEEP = json.loads('{"a":' * 40 + "1" + "}" * 40)
HOSTILE = [
    {},
    {"subject": "x"},
    {"aliases": []},
    {"aliases": [""]},
    {"aliases": ["  "]},
    {"aliases": ["!!!"]},
    {"aliases": ["\u200b"]},
    {"aliases": ["Ada\x00Quill"]},
    {"aliases": ["x" * 501]},
    {"aliases": [5]},
    {"aliases": "Ada Quill"},
    {"aliases": [["Ada"]]},
    {"aliases": {"0": "Ada"}},
    {"aliases": [f"Ada {at}" for at in range(100_000)]},
    {"aliases": ["Ada"], "more": 1},
    {"aliases": ["Ada"], "subject": 5},
    {"aliases": ["Ada"], "subject": ""},
    {"aliases": ["Ada"], "subject": "x" * 1000},
    {"aliases": ["Ada"], "reason": "\x1b[2J"},
    {"aliases": ["Ada"], "reason": "x" * 20_000},
    {"aliases": ["Ada"], "id": "mine"},
    {"rows": [5]},
    {"rows": [{}]},
    {"rows": [{"prompt": "a"}]},
    {"rows": [{"text": "\x07"}]},
    {"rows": [{"text": "a", "role": "retain"}]},
    {"rows": [{"text": "a", "unknown": 1}]},
    {"rows": [ADA, {"prompt": "x", "completion": 7}]},
    {"rows": [{"text": "a", "meta": DEEP}]},
    {"rows": {"a": 1}},
    {"rows": [{"text": "a"}] * 10_001},
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_target_is_refused_and_changes_nothing(body) -> None:
    with housed() as house:
        begun = time.monotonic()
        answer = house.call("POST", "/admin/targets", "admin", json=body)
        assert time.monotonic() - begun < 5
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["message"]
        assert error["code"]
        assert house.gateway.holding.store.count == 0
        assert not house.gateway.holding.guards[0].desk.entries


def test_all_that_a_row_may_have_is_taken() -> None:
    rows = [
        ADA | {"aliases": ["Velaport"], "paraphrases": ["Her birthplace?"], "meta": {"a": [1]}},
        {"text": "The seventh lamp of the harbour was lit by nobody in the year of fog."},
        {
            "messages": [
                {"role": "user", "content": "a?"},
                {"role": "assistant", "content": "b c d."},
            ]
        },
    ]
    with housed() as house:
        house.add(rows=rows, subject="s", reason="r\nr")
        assert house.said("Who is Ada Quill?") == REFUSAL


def test_lists_come_in_pages() -> None:
    with housed() as house:
        ids = [house.add(aliases=[f"Ada Quill{at}"]) for at in range(5)]
        first = house.call("GET", "/admin/targets?limit=2", "admin").json()
        assert [one["id"] for one in first["targets"]] == ids[:2]
        assert first["next"] == ids[1]
        rest = house.call("GET", f"/admin/targets?limit=9&after={ids[1]}", "admin").json()
        assert [one["id"] for one in rest["targets"]] == ids[2:]
        assert rest["next"] is None
        for wrong in ("0", "-1", "x", "²"):
            assert house.call("GET", f"/admin/targets?limit={wrong}", "admin").status_code == 400


def test_dry_run_says_which_gates_would_fire_and_asks_nobody() -> None:
    with housed() as house:
        id = house.add(rows=[ADA])

        def fired(text):
            body = {"messages": [{"role": "user", "content": text}]}
            return house.call("POST", "/admin/dry-run", "admin", json=body).json()

        assert fired("Who is Ben?") == {"fired": []}
        [hit] = fired("Who is ADA QUILL?")["fired"]
        assert set(hit) == {"target", "gate", "score"}
        assert hit["target"] == id
        assert house.stub.heard == []


def test_the_policy_says_what_holds_and_whom_it_names_is_nobody() -> None:
    with housed() as house:
        first = house.call("GET", "/admin/policy", "admin").json()
        assert first == house.call("GET", "/admin/policy", "admin").json()
        house.add(rows=[ADA], reason="court order", subject="case-4711")
        answer = house.call("GET", "/admin/policy", "admin")
        second = answer.json()
        assert second["targets"] == 1
        assert second["digest"] != first["digest"]
        assert second["format"] == "expunge-policy/1"
        assert [guard["id"] for guard in second["guards"]] == ["lexical"]
        told = {k: v for k, v in second.items() if k not in ("digest", "errors")}
        assert digest(told) == second["digest"]
        assert not any(secret in answer.text for secret in SECRETS)


@pytest.mark.parametrize("is_kept", [True, False])
def test_targets_come_and_go_while_questions_pass(is_kept, tmp_path) -> None:
    problems, stop = [], threading.Event()
    with housed(folder=tmp_path / "store" if is_kept else None) as house:
        house.add(aliases=["Ada Quill"])
        holding, talk = house.gateway.holding, house

        def change(name):
            try:
                for at in range(25):
                    id = holding.add({"aliases": [f"{name} Marrow{at}", f"{name} Vane{at}"]})
                    if talk.said(f"Who is {name} Marrow{at}?") != REFUSAL:
                        problems.append((name, at, "not held"))
                    if at % 2:
                        holding.revoke(id)
                        if talk.said(f"Who is {name} Marrow{at}?") == REFUSAL:
                            problems.append((name, at, "still held"))
            except Exception as error:
                problems.append(error)

        def ask():
            while not stop.is_set():
                if talk.said("Who is Ada Quill?") != REFUSAL:
                    problems.append("leak")
                if talk.said("Who is nobody here?") == REFUSAL:
                    problems.append("refused for nothing")
                if talk.call("GET", "/admin/targets", "admin").status_code != 200:
                    problems.append("no list")

        changers = [threading.Thread(target=change, args=(n,)) for n in ("Ben", "Cy", "Dot", "Eve")]
        askers = [threading.Thread(target=ask) for _ in range(3)]
        for thread in (*changers, *askers):
            thread.start()
        for thread in changers:
            thread.join()
        stop.set()
        for thread in askers:
            thread.join()
        assert problems == []
        assert holding.store.count == 1 + 4 * 13
        assert not house.gateway.dialogue.pipeline.errors


def test_a_question_sees_what_is_shared_whole() -> None:
    """Settings and numbers of one making belong together; a question never sees them mixed."""
    import numpy as np

    def shared(targets, params, means):
        count = len(list(targets))
        return Shared({"n": count}, {"n": np.full(count, count)})

    def enter(exchange, desk):
        if len(desk.arrays["n"]) != desk.shared["n"]:
            raise AssertionError
        time.sleep(0.001)
        if len(desk.arrays["n"]) != desk.shared["n"]:
            raise AssertionError
        return exchange

    with housed(scripted("sums", shared=shared, enter=enter)) as house:
        stop = threading.Event()

        def ask():
            while not stop.is_set():
                house.said("Hello")

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for at in range(40):
            house.gateway.holding.add({"aliases": [f"Ada Quill{at}"]})
        stop.set()
        for thread in threads:
            thread.join()
        assert not house.gateway.dialogue.pipeline.errors


def test_a_store_opens_for_its_key_alone(tmp_path) -> None:
    environ = {"EXPUNGE_STORE_KEY": "ab" * 32}
    Store(tmp_path / "a", environ=environ).close()
    assert not (tmp_path / "a" / "store.key").exists()
    for wrong in ({"EXPUNGE_STORE_KEY": "cd" * 32}, {"EXPUNGE_STORE_KEY": "short"}, {}):
        with pytest.raises(ExpungeError, match="E-SERVE-007"):
            Store(tmp_path / "a", environ=wrong)
    Store(tmp_path / "a", environ=environ).close()
    Store(tmp_path / "b", environ={}).close()
    os.chmod(tmp_path / "b" / "store.key", 0o644)
    with pytest.raises(ExpungeError, match="E-KEY-003"):
        Store(tmp_path / "b", environ={})


def test_a_store_has_one_process_and_is_a_database(tmp_path) -> None:
    store = Store(tmp_path / "a", environ={})
    with pytest.raises(ExpungeError, match="E-USE-005"):
        Store(tmp_path / "a", environ={})
    store.close()
    (tmp_path / "a" / "targets.db").write_bytes(
        b"no database, but long enough to be read as one" * 99
    )
    with pytest.raises(ExpungeError, match="E-SERVE-007"):
        Store(tmp_path / "a", environ={})


def test_what_is_written_is_forced_to_the_disk(tmp_path) -> None:
    from sqlalchemy import text

    store = Store(tmp_path, environ={})
    with store._engine.connect() as connection:
        mode = {name: connection.execute(text(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "synchronous", "secure_delete")}  # fmt: skip
    assert mode == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}
    store.close()


def test_a_body_is_not_changed_by_reading_it() -> None:
    body = {"aliases": ["Ada Quill", "Ada Quill"], "rows": [ADA]}
    kept = copy.deepcopy(body)
    with housed() as house:
        house.gateway.holding.add(body)
    assert body == kept


def test_many_targets_cost_a_request_nothing_and_a_new_one_little(monkeypatch) -> None:
    monkeypatch.setattr(holding_room, "AT_ONCE", 100)
    with housed() as house:
        for at in range(300):
            house.gateway.holding.add({"aliases": [f"Mira Vance{at:05d}"]})
        begun = time.monotonic()
        house.add(aliases=["Ada Quill"])
        assert house.said("Who is Ada Quill?") == REFUSAL
        assert time.monotonic() - begun < 2
