"""The command line's HTTP: what it does when a connection breaks, and whom it sends the token to."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from listener.cli import client, transport
from listener.cli.client import Client
from listener.cli.failures import ListenerUnreachableError, RefusedByListenerError
from listener.cli.transport import Transport

Answering = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def answering(answer: Answering) -> Iterator[int]:
    """A server on loopback that answers each GET and POST so: its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET  # noqa: N815 (the name that http.server looks for)

        def log_message(self, *args: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def to(port: int) -> Client:
    return Client(Transport(f"http://127.0.0.1:{port}", {"Authorization": "Bearer sst_token"}, None))


def say(request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    """A whole answer."""
    request.send_response(status)
    for name, value in {"Content-Type": "application/json", **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def stream(request: BaseHTTPRequestHandler, *chunks: bytes, broken: bool) -> None:
    """A log, in chunks; a broken one ends without the last chunk."""
    request.send_response(200)
    request.send_header("Content-Type", "application/x-ndjson; charset=utf-8")
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    for chunk in (*chunks, *(() if broken else (b"",))):
        request.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    request.close_connection = True


def test_a_log_goes_on_behind_its_last_line_when_its_connection_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "RESUME_PAUSE", 0)
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        match len(asked):
            case 1:
                stream(request, b'{"n": 1}\n\n{"n"', b': 2}\n{"half', broken=True)
            case 2:
                stream(request, broken=True)
            case _:
                stream(request, b"\n", '{"n": "drei ✓"}\n'.encode(), broken=False)

    with answering(answer) as port:
        lines = [json.loads(line) for line in to(port).log("a run", follow=True)]
    assert lines == [{"n": 1}, {"n": 2}, {"n": "drei ✓"}]
    assert [path.partition("?")[2] for path in asked] == [
        "after=0&follow=true",
        "after=2&follow=true",
        "after=2&follow=true",
    ]
    assert asked[0].startswith("/api/v1/runs/a%20run/log?")


def test_a_log_that_never_began_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "RESUME_PAUSE", 0)
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        request.close_connection = True

    with answering(answer) as port, pytest.raises(ListenerUnreachableError, match="the connection broke off"):
        list(to(port).log("1", follow=True))
    assert len(asked) == 1


def test_an_answer_that_breaks_off_is_not_taken_for_one() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b'{"sites": []}')
        request.close_connection = True

    with answering(answer) as port, pytest.raises(ListenerUnreachableError, match="the connection broke off"):
        to(port).get("/api/v1/sites")


def test_a_silent_listener_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_LIMIT", 0.1)
    over = threading.Event()

    def answer(_request: BaseHTTPRequestHandler) -> None:
        over.wait()

    with answering(answer) as port:
        with pytest.raises(ListenerUnreachableError, match="it took too long"):
            to(port).get("/api/v1/sites")
        over.set()


def test_a_redirect_is_not_followed_with_the_token() -> None:
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        say(request, 302, b"{}", Location="/elsewhere")

    with answering(answer) as port, pytest.raises(RefusedByListenerError, match="302"):
        to(port).get("/api/v1/sites")
    assert asked == ["/api/v1/sites"]


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str | None]]]:
    """A proxy of the environment: what it was asked for, and with which credentials."""
    asked: list[tuple[str, str | None]] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append((request.path, request.headers["Proxy-Authorization"]))
        say(request, 200, b"{}")

    with answering(answer) as port:
        monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        yield asked


def test_another_machine_is_reached_through_the_proxy_of_the_environment(
    proxied: list[tuple[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Client(Transport("http://listener.example.com:8787/base", {}, None))
    assert far.get("/api/v1/sites") == {}
    assert proxied == [("http://listener.example.com:8787/base/api/v1/sites", "Basic dXNlcjp3b3Jk")]
    monkeypatch.setenv("no_proxy", "example.com")
    assert transport._proxy_for(Transport("http://listener.example.com", {}, None)._parts) is None


def test_loopback_is_never_reached_through_a_proxy(proxied: list[tuple[str, str | None]]) -> None:
    with answering(lambda request: say(request, 200, b'{"here": true}')) as port:
        assert to(port).get("/api/v1/sites") == {"here": True}
    assert proxied == []


def test_a_secret_in_a_path_is_in_no_message() -> None:
    with answering(lambda _request: None) as port:
        pass
    with pytest.raises(ListenerUnreachableError) as refused:
        to(port).send("/hooks/own/s3cret in the path", b"{}", {})
    assert "s3cret" not in refused.value.message + refused.value.remedy
