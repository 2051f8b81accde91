"""Who may call what, how often and how much; and what a server must not start with."""

import asyncio
import re
import time

import pytest
from gateways import TOKENS, certificate, housed, scripted

from expunge.core.errors import ExpungeError, Problems
from expunge.serve.access import Access, Bucket, Token, new_token
from expunge.serve.app import routes
from expunge.serve.door import Door, scope_of
from expunge.serve.faults import Fault
from expunge.serve.options import Options, check
from expunge.serve.server import opened

BODIES = {
    "/v1/chat/completions": {"model": "m1", "messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"model": "m1", "prompt": "a"},
    "/admin/targets": {"aliases": ["Ada Quill"]},
    "/admin/dry-run": {"messages": [{"role": "user", "content": "a"}]},
}
EXPECTED = {
    ("POST", "/v1/chat/completions"): "caller",
    ("POST", "/v1/completions"): "caller",
    ("GET", "/v1/models"): "caller",
    ("GET", "/health"): "caller",
    ("POST", "/admin/targets"): "admin",
    ("GET", "/admin/targets"): "admin",
    ("DELETE", "/admin/targets/{id}"): "admin",
    ("POST", "/admin/dry-run"): "admin",
    ("GET", "/admin/policy"): "admin",
}


@pytest.fixture(scope="module")
def house():
    with housed() as built:
        yield built


def test_the_table_names_every_route(house) -> None:
    app = house.app._app
    real = {
        (method, route.path)
        for route in app.routes
        for method in route.methods - {"HEAD"}
    }  # fmt: skip
    assert real == set(EXPECTED) == {(m, p) for m, p, _ in routes(house.gateway)}


ROLES = ["", "caller", "admin", "wrong", "empty", "basic", "twice", "expired", "long"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), list(EXPECTED))
def test_every_route_against_every_role(house, method, path, role) -> None:
    needed = EXPECTED[method, path]
    own = TOKENS[needed]
    header = {
        "": None, "caller": f"Bearer {TOKENS['caller']}", "admin": f"Bearer {TOKENS['admin']}",
        "wrong": f"Bearer {own[:-1]}", "empty": "Bearer ", "basic": f"Basic {own}",
        "twice": f"Bearer {own} {own}", "expired": "Bearer expired", "long": "Bearer " + own * 500,
    }[role]  # fmt: skip
    headers = {"Authorization": header} if header else {}
    real = path.replace("{id}", house.add(aliases=["x"]))
    answer = house.client.request(method, real, headers=headers, json=BODIES.get(path))
    expected = 200 if role == needed else 403 if role in ("caller", "admin") else 401
    assert answer.status_code == expected
    if expected != 200:
        assert set(answer.json()) == {"error"}
        assert ("www-authenticate" in answer.headers) == (expected == 401)


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/openapi.json", "/redoc", "/admin", "/admin/", "//admin/targets",
     "/ADMIN/targets",      "/v1/%2e%2e/admin/targets", "/health/", "/v1/models/"],
)  # fmt: skip
def test_no_other_path_answers_anybody(house, path) -> None:
    for role in ("", "caller", "admin"):
        for method in ("GET", "POST", "DELETE"):
            answer = house.call(method, path, role)
            assert answer.status_code in ((403, 404, 405) if role else (401,))


@pytest.mark.parametrize("path", ["/v1/../admin/targets", "/admin%2ftargets", "/%61dmin/targets"])
def test_other_spellings_of_a_path_take_the_same_token(house, path) -> None:
    assert house.call("GET", path, "").status_code == 401
    assert house.call("GET", path, "caller").status_code == 403


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", ["/health", "/v1/chat/completions", "/admin/targets"])
def test_no_other_method_answers_anybody(house, method, path) -> None:
    assert house.call(method, path, "").status_code == 401
    answer = house.call(method, path, scope_of(path))
    assert answer.status_code == 405 or (method == "HEAD" and answer.content == b"")


def test_the_scope_of_a_path_is_the_admins_below_admin() -> None:
    assert [scope_of(p) for p in ("/admin", "/admin/x", "/administrator", "/v1/admin/x")] == [
        "admin", "admin", "caller", "caller",
    ]  # fmt: skip


def test_two_tokens_in_one_request_are_none() -> None:
    async def run():
        sent = []

        async def app(*_):
            raise AssertionError

        async def send(message):
            sent.append(message)

        door = Door(app, Access([Token.of("right", "caller")]))
        headers = [(b"authorization", b"Bearer right"), (b"authorization", b"Bearer wrong")]
        await door({"type": "http", "path": "/health", "headers": headers}, None, send)
        return sent[0]["status"]

    assert asyncio.run(run()) == 401


def test_tokens_have_256_bits_and_are_kept_as_salted_hashes() -> None:
    made = {new_token() for _ in range(50)}
    assert len(made) == 50
    assert all(len(token) * 6 >= 256 for token in made)
    one, other = Token.of("same", "caller"), Token.of("same", "caller")
    assert one.hash != other.hash
    assert b"same" not in one.hash + one.salt
    assert one.fits("same")
    assert not one.fits("other")


def test_tokens_expire() -> None:
    now = [100.0]
    access = Access([Token.of("t", "caller", expires=200.0)], clock=lambda: now[0])
    access.admit("Bearer t", "caller")
    now[0] = 200.0
    with pytest.raises(Fault) as refused:
        access.admit("Bearer t", "caller")
    assert refused.value.status == 401


@pytest.mark.parametrize("rate", [0.5, 1, 7, 100, 1000])
def test_a_rate_is_kept_within_one_per_cent(rate) -> None:
    now = [0.0]
    bucket = Bucket(rate, lambda: now[0])
    let, seconds = 0, 60 if rate > 50 else 600
    steps = int(seconds * rate * 3)
    for step in range(steps):
        now[0] = step * seconds / steps
        let += not bucket.wait()
    assert abs(let - rate * seconds) <= max(1.0, 0.01 * rate * seconds)


def test_who_waits_as_long_as_told_is_let_in() -> None:
    now = [0.0]
    bucket = Bucket(2.0, lambda: now[0])
    while not (wait := bucket.wait()):
        pass
    now[0] += wait
    assert not bucket.wait()
    assert bucket.wait()


def test_too_many_requests_are_told_to_wait_and_each_token_counts_for_itself() -> None:
    with housed(rate=2) as house:
        answers = [house.call("GET", "/health") for _ in range(4)]
        assert [one.status_code for one in answers][-1] == 429
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].json()["error"]["type"] == "rate_limit_error"
        assert house.call("GET", "/admin/policy", "admin").status_code == 200


def test_bodies_are_limited_whether_they_say_their_length_or_not() -> None:
    with housed(limits={"most_bytes": 1000}) as house:
        for scope, path in (("caller", "/v1/chat/completions"), ("admin", "/admin/targets")):
            assert house.call("POST", path, scope, content=b"x" * 1001).status_code == 413
            parts = (b"x" * 100 for _ in range(20))
            assert house.call("POST", path, scope, content=parts).status_code == 413
            assert house.call("POST", path, scope, content=b"x" * 1000).status_code == 400
        assert house.call("POST", "/admin/targets", "", content=b"x" * 1001).status_code == 401


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def run():
        sent = []

        async def receive():
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        door = Door(None, Access([Token.of("t", "caller")]), seconds=0.05)
        scope = {"type": "http", "path": "/v1/x", "headers": [(b"authorization", b"Bearer t")]}
        begun = time.monotonic()
        await door(scope, receive, send)
        assert time.monotonic() - begun < 5
        return sent[0]["status"]

    assert asyncio.run(run()) == 408


OUTSIDE = "0.0.0.0"  # noqa: S104
STRONG = {"EXPUNGE_TOKEN": "c" * 43, "EXPUNGE_ADMIN_TOKEN": "a" * 43}

WEAK = STRONG | {"EXPUNGE_TOKEN": "weak"}


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "127.8.9.1"}, True),
        ({"environ": {"EXPUNGE_TOKEN": "short"}}, True),
        ({"environ": {"EXPUNGE_TOKEN": "same", "EXPUNGE_ADMIN_TOKEN": "same"}}, False),
        ({"host": OUTSIDE}, False),
        ({"host": "::"}, False),
        ({"host": "example.org"}, False),
        ({"host": OUTSIDE, "environ": STRONG}, False),
        ({"host": OUTSIDE, "behind_proxy": True}, False),
        ({"host": OUTSIDE, "behind_proxy": True, "environ": WEAK}, False),
        ({"host": OUTSIDE, "behind_proxy": True, "environ": {"EXPUNGE_TOKEN": "c" * 43}}, False),
        ({"host": OUTSIDE, "behind_proxy": True, "environ": STRONG}, True),
        ({"host": OUTSIDE, "tls_cert": "c", "tls_key": "k", "environ": STRONG}, False),
        ({"host": OUTSIDE, "tls_cert": "c", "environ": STRONG}, False),
        ({"tls_key": "k"}, False),
    ],
)  # fmt: skip
def test_an_address_that_others_reach_needs_tokens_and_tls(given, fits) -> None:
    options = Options(**({"upstream": "http://127.0.0.1:9/v1", "environ": {}} | given))
    problems = check(options)
    assert [one.code for one in problems] == ([] if fits else ["E-SERVE-006"] * len(problems))
    assert bool(problems) is not fits


def test_tls_will_do_and_files_that_are_none_will_not(tmp_path) -> None:
    cert, key = certificate(tmp_path)
    given = {"upstream": "http://127.0.0.1:9/v1", "host": OUTSIDE, "environ": STRONG}
    assert check(Options(**given, tls_cert=cert, tls_key=key)) == []
    for one, other in ((key, cert), (cert, cert), (tmp_path / "none", key)):
        assert check(Options(**given, tls_cert=one, tls_key=other))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "E-USE-007"),
        ({"model": "m", "upstream": "http://x/v1"}, "E-USE-006"),
        ({"model": "m", "upstream_model": "x"}, "E-USE-006"),
        ({"upstream": "http://x/v1", "guards": ()}, "E-USE-007"),
        ({"upstream": "http://x/v1", "guards": ("lexicall",)}, "E-USE-001"),
        ({"upstream": "http://x/v1", "settings": {"lexical.replly": "x"}}, "E-USE-002"),
        ({"upstream": "http://x/v1", "settings": {"other.reply": "x"}}, "E-USE-002"),
        ({"upstream": "http://x/v1", "settings": {"lexical.answer_words": "99"}}, "E-USE-003"),
        ({"upstream": "ftp://x"}, "E-SERVE-006"),
        ({"upstream": "http://u:p@x/v1"}, "E-SERVE-006"),
        ({"upstream": "http://[x/v1"}, "E-SERVE-006"),
        ({"upstream": "http://x/v1?key=1"}, "E-SERVE-006"),
        ({"model": "/no/such/folder"}, "E-MODEL-001"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given, code) -> None:
    with pytest.raises(ExpungeError) as refused, opened(Options(environ={}, **given)):
        pass
    problems = getattr(refused.value, "problems", (refused.value,))
    assert code in [one.code for one in problems]
    assert re.search("p@x", str(refused.value)) is None


def test_settings_of_a_guard_reach_it() -> None:
    for name in ("reply", "lexical.reply"):
        options = Options(upstream="http://x/v1", settings={name: "No."}, environ={})
        with opened(options) as ready:
            [guard] = ready.gateway.dialogue.pipeline.guards
            assert guard.desk.params.reply == "No."


def test_guards_that_something_stands_in_for_need_no_language_model() -> None:
    options = Options(
        upstream="http://x/v1", guards=("pii-fe", "ipi-guard", "lexical", "agent-mu"), environ={}
    )
    with opened(options) as ready:
        placed = [guard.id for guard in ready.gateway.dialogue.pipeline.guards]
    assert placed == ["pii-fe", "ipi-guard", "lexical", "agent-mu"]


def test_roles_that_nobody_plays_in_front_of_an_upstream_are_named_at_once() -> None:
    options = Options(upstream="http://x/v1", guards=("alu",), environ={})
    with pytest.raises(Problems) as refused, opened(options):
        pass
    assert [one.code for one in refused.value.problems] == ["E-SERVE-002"] * 4


CALLERS = {"EXPUNGE_TOKEN": "c" * 32, "EXPUNGE_ADMIN_TOKEN": "a" * 32}


def test_callers_are_told_apart_by_their_tokens() -> None:
    environ = {**CALLERS, "EXPUNGE_CALLERS": f"staff={'s' * 32}, guest={'g' * 32}"}
    with opened(Options(upstream="http://x/v1", environ=environ)) as ready:
        access = ready.gateway.access
        roles = [access.admit(f"Bearer {letter * 32}", "caller") for letter in "csg"]
        with pytest.raises(Fault):
            access.admit(f"Bearer {'s' * 32}", "admin")
        assert ready.gateway.settings["callers"] == ["guest", "staff"]
    assert roles == ["", "staff", "guest"]


def test_a_guard_hears_the_role_of_the_caller_and_nobody_can_claim_one() -> None:
    heard = []
    guard = scripted("own", enter=lambda exchange, desk: heard.append(exchange.caller) or exchange)
    with housed(guard, callers={"staff": "token-of-the-staff"}) as house:
        house.ask("Hello.")
        house.call(
            "POST", "/v1/chat/completions", scope="nobody",
            headers={"Authorization": "Bearer token-of-the-staff"},
            json={"model": "m", "messages": [{"role": "user", "content": "Hello."}]},
        )  # fmt: skip
        house.ask("Hello.", user="staff")
    assert heard == ["", "staff", ""]


@pytest.mark.parametrize(
    "callers", ["staff=", "=abc", "staff", f"staff={'c' * 32}", f"a={'x' * 32},b={'x' * 32}"]
)
def test_half_a_caller_or_a_token_in_two_places_is_refused(callers) -> None:
    problems = check(
        Options(upstream="http://x/v1", environ={**CALLERS, "EXPUNGE_CALLERS": callers})
    )
    assert [one.code for one in problems] == ["E-SERVE-006"]
    assert "xxx" not in str(problems[0])


def test_a_short_token_of_a_caller_is_not_for_others_to_reach() -> None:
    environ = {**CALLERS, "EXPUNGE_CALLERS": "staff=short"}
    [problem] = check(
        Options(upstream="http://x/v1", host="0.0.0.0", behind_proxy=True, environ=environ)  # noqa: S104
    )
    assert "EXPUNGE_CALLERS too short" in problem.found


def test_tokens_are_made_once_and_kept_with_the_store(tmp_path) -> None:
    options = Options(upstream="http://x/v1", store=tmp_path / "s", environ={})
    with opened(options) as first:
        shown = dict(first.shown)
        assert set(shown) == {"caller", "admin"}
    with opened(options) as second:
        assert second.shown == {}
        second.gateway.access.admit(f"Bearer {shown['admin']}", "admin")
        second.gateway.access.admit(f"Bearer {shown['caller']}", "caller")
        with pytest.raises(Fault):
            second.gateway.access.admit(f"Bearer {shown['caller']}", "admin")
    renewed = Options(upstream="http://x/v1", store=tmp_path / "s", environ={}, new_tokens=True)
    with opened(renewed) as third:
        assert set(third.shown) == {"caller", "admin"}
        with pytest.raises(Fault):
            third.gateway.access.admit(f"Bearer {shown['admin']}", "admin")
    for file in (tmp_path / "s").iterdir():
        content = file.read_bytes()
        assert not any(token.encode() in content for token in shown.values())


def test_tokens_of_the_environment_hold_and_are_not_shown(tmp_path) -> None:
    options = Options(upstream="http://x/v1", store=tmp_path / "s", environ=STRONG)
    with opened(options) as ready:
        assert ready.shown == {}
        ready.gateway.access.admit(f"Bearer {'c' * 43}", "caller")
    assert not any(b"ccccc" in file.read_bytes() for file in (tmp_path / "s").iterdir())


def test_tokens_made_here_expire_and_are_made_anew(tmp_path) -> None:
    options = Options(upstream="http://x/v1", store=tmp_path / "s", environ={}, token_days=0.0)
    with opened(options) as first, pytest.raises(Fault):
        first.gateway.access.admit(f"Bearer {first.shown['caller']}", "caller")
    with opened(options) as second:
        assert set(second.shown) == {"caller", "admin"}
