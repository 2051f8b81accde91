"""The command as users start it: a real server, the official client, a hard kill."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import openai
import pytest
from gateways import ADA, REFUSAL, certificate, streamed, whole

TOKENS = {"EXPUNGE_TOKEN": "c" * 40, "EXPUNGE_ADMIN_TOKEN": "a" * 40}
ADMIN = {"Authorization": f"Bearer {TOKENS['EXPUNGE_ADMIN_TOKEN']}"}
CALLER = {"Authorization": f"Bearer {TOKENS['EXPUNGE_TOKEN']}"}


class Upstream(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that says the last message back."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(raw)
        self.server.heard.append(raw)
        asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        said = [f"You said: {asked}"] * body.get("n", 1)
        self._send(
            streamed(body, said) if body.get("stream") else json.dumps(whole(body, said)).encode()
        )

    def do_GET(self) -> None:
        self._send(json.dumps({"data": [{"id": "echo"}]}).encode())

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.heard = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Process:
    """One ``expunge serve``."""

    def __init__(self, arguments, environ, log) -> None:
        self.port, self.log = free_port(), log
        self.url = f"http://127.0.0.1:{self.port}"
        with open(log, "ab") as handle:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "expunge", "serve", "--port", str(self.port), *arguments],
                env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=handle,
            )  # fmt: skip
        for _ in range(1200):
            try:
                httpx.get(f"{self.url}/health", headers=CALLER, timeout=5)
                return
            except httpx.TransportError:
                if self.process.poll() is not None:
                    raise AssertionError(log.read_text()) from None
                time.sleep(0.05)
        raise AssertionError("it does not start")

    def end(self, how=signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(how)
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out.decode()


@contextmanager
def serving(*arguments, environ=TOKENS, log):
    process = Process([str(one) for one in arguments], environ, log)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
            process.process.communicate()


def client(process) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{process.url}/v1", api_key="c" * 40, max_retries=0)


def say(one, text, **more) -> str:
    messages = [{"role": "user", "content": text}]
    return (
        one.chat.completions.create(model="echo", messages=messages, **more)
        .choices[0]
        .message.content
    )


def test_the_official_client_works_unchanged_and_a_kill_loses_nothing(upstream, tmp_path) -> None:
    address = f"http://127.0.0.1:{upstream.server_address[1]}/v1"
    arguments = ("--upstream", address, "--store", tmp_path / "store")
    log = tmp_path / "log"
    with serving(*arguments, log=log) as process, client(process) as one:
        assert say(one, "Hello, Ben.") == "You said: Hello, Ben."
        assert [model.id for model in one.models.list()] == ["echo"]
        stream = one.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "Hello, Ben."}], stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        events = list(stream)
        told = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
        assert told == "You said: Hello, Ben."
        assert events[-1].usage.total_tokens > 0
        text = one.completions.create(model="echo", prompt="Once", n=2)
        assert [choice.text for choice in text.choices] == ["You said: Once"] * 2
        with pytest.raises(openai.BadRequestError, match="logit_bias"):
            say(one, "Hello", logit_bias={"5": 100})
        with pytest.raises(openai.AuthenticationError):
            say(one.with_options(api_key="wrong"), "Hello")
        with pytest.raises(openai.PermissionDeniedError):
            say(one.with_options(api_key="a" * 40), "Hello")
        answer = httpx.post(f"{process.url}/admin/targets", headers=ADMIN, json={"rows": [ADA]})
        assert answer.status_code == 200
        os.kill(process.process.pid, signal.SIGKILL)
        process.process.communicate()
    upstream.heard.clear()
    with serving(*arguments, log=log) as process, client(process) as one:
        assert say(one, "Where was Ada Quill born?") == REFUSAL
        assert say(one, "Tell me of Port Vela, stream.", n=1) == REFUSAL
        stream = one.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "Who is Ada Quill?"}], stream=True
        )
        assert "".join(e.choices[0].delta.content or "" for e in stream) == REFUSAL
        assert say(one, "Hello, Ben.") == "You said: Hello, Ben."
        id = answer.json()["id"]
        httpx.delete(f"{process.url}/admin/targets/{id}", headers=ADMIN)
        assert "Quill" in say(one, "Where was Ada Quill born?")
        code, out = process.end()
        assert code == 0
        assert "targets" in out
    for file in (log, *(tmp_path / "store").iterdir()):
        content = file.read_bytes()
        for secret in (b"Quill", b"quill", b"Port Vela", b"c" * 40, b"a" * 40):
            assert secret not in content, file


@contextmanager
def running(options):
    """A server in a thread of this process, where torch is loaded already."""
    from expunge.serve.server import Server, opened

    with opened(options) as ready:
        served = Server(ready.gateway, options)
        thread = threading.Thread(target=served.run)
        thread.start()
        try:
            yield served.url.removesuffix("/v1")
        finally:
            served.uvicorn.should_exit = True
            thread.join(20)


def test_a_small_local_model_answers_the_official_client(tmp_path) -> None:
    from expunge.serve.options import Options
    from expunge.testing.tiny import tiny_model, tiny_tokenizer

    tokenizer = tiny_tokenizer(["Who is Ben? Ada Quill was born in Port Vela."], chat=True)
    tiny_model("llama", vocab=len(tokenizer)).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    options = Options(model=str(tmp_path / "tiny"), port=0, environ=TOKENS)
    with running(options) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="c" * 40) as one:
        first = say(one, "Who is Ben?", temperature=0, max_tokens=8)
        stream = one.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Who is Ben?"}], stream=True,
            temperature=0, max_tokens=8,
        )  # fmt: skip
        assert "".join(e.choices[0].delta.content or "" for e in stream) == first
        assert [model.id for model in one.models.list()] == ["tiny"]
        httpx.post(f"{url}/admin/targets", headers=ADMIN, json={"aliases": ["Ada Quill"]})
        assert say(one, "Who is Ada Quill?") == REFUSAL
        assert say(one, "Who is Ben?", temperature=0, max_tokens=8) == first


def test_slow_clients_are_hung_up_on_and_long_headers_refused(upstream, monkeypatch) -> None:
    from expunge.serve import server as room

    monkeypatch.setattr(room, "HEADER_SECONDS", 0.3)
    address = f"http://127.0.0.1:{upstream.server_address[1]}"
    with running(room.Options(upstream=address, port=0, environ=TOKENS)) as url:
        place = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        for begun in (b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n"):
            with socket.create_connection(place, timeout=10) as one:
                one.sendall(begun)
                began = time.monotonic()
                assert one.recv(100) == b""
                assert time.monotonic() - began < 8
        with socket.create_connection(place, timeout=10) as one:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 200_000)
            assert b" 400 " in one.recv(100)
        with httpx.Client(base_url=url, headers=CALLER) as kept:
            for _ in range(3):
                assert kept.get("/health").status_code == 200
                time.sleep(0.2)
            assert "server" not in kept.get("/health").headers


def test_a_certificate_makes_it_speak_tls(upstream, tmp_path) -> None:
    from expunge.serve.options import Options

    cert, key = certificate(tmp_path)
    address = f"http://127.0.0.1:{upstream.server_address[1]}"
    options = Options(upstream=address, port=0, environ=TOKENS, tls_cert=cert, tls_key=key)
    with running(options) as url:
        assert url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(cert))
        assert httpx.get(f"{url}/health", headers=CALLER, verify=trusting).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url.replace('https', 'http')}/health", headers=CALLER)


def test_an_address_that_is_taken_is_an_error_in_words(tmp_path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "expunge", "serve", "--upstream", "http://127.0.0.1:9",
             "--port", str(port), "--json"],
            check=False, capture_output=True, text=True, env={**os.environ, **TOKENS}, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "E-SERVE-006"


def test_in_front_of_an_upstream_no_torch_is_loaded() -> None:
    code = (
        "import sys, os\n"
        "from expunge.serve.options import Options\n"
        "from expunge.serve.server import Server, opened\n"
        "with opened(Options(upstream='http://127.0.0.1:9', port=0, environ={})) as ready:\n"
        "    Server(ready.gateway, Options(upstream='x', port=0)).uvicorn\n"
        "    ready.gateway.holding.add({'aliases': ['Ada Quill']})\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
