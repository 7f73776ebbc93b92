"""TLS of the listener's own: what it shows, how a renewed certificate is taken up, and what is refused."""

import asyncio
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509

from listener.config.files import tls_context
from listener.config.settings import load
from listener.edge import tls
from listener.errors import ConfigurationError
from listener.system import System
from tests.e2e.cli.shell import Shell
from tests.e2e.conftest import Start
from tests.kept_log import KeptLog
from tests.listening import client
from tests.strangers import certificate, head

Write = Callable[..., Path]


@asynccontextmanager
async def speaking(configured: Write, pair: dict[str, str]) -> AsyncIterator[tuple[int, Path]]:
    """A listener with this pair: its port, and its configuration."""
    file = configured(server={"host": "127.0.0.1", "port": 0, "drain": 5, "tls": pair})
    async with System(load(file)) as system:
        await system.listen()
        yield system.port, file


async def shown(port: int, version: ssl.TLSVersion | None = None) -> x509.Certificate:
    """The certificate that a client is shown."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        trusting.maximum_version = version
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(der)


def written(pair: dict[str, str]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(pair["certificate"]).read_bytes())


def take_away(pair: dict[str, str]) -> None:
    Path(pair["certificate"]).unlink()


async def test_a_client_that_trusts_the_certificate_is_answered(configured: Write, tmp_path: Path) -> None:
    pair = certificate(tmp_path)
    async with speaking(configured, pair) as (port, _):
        trusting = ssl.create_default_context(cafile=pair["certificate"])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
        )
        writer.write(head("/healthz", method="GET"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_renewed_certificate_is_shown_without_a_restart(
    configured: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LOOK", 0.02)
    pair = certificate(tmp_path)
    async with speaking(configured, pair) as (port, _):
        first = written(pair)
        assert await shown(port) == first
        certificate(tmp_path)
        assert written(pair) != first
        async with asyncio.timeout(300):
            while await shown(port) != written(pair):
                await asyncio.sleep(0.02)
        assert await shown(port, ssl.TLSVersion.TLSv1_2) == written(pair)


async def test_a_new_pair_that_does_not_fit_leaves_the_old_one(
    configured: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tls, "LOOK", 0.02)
    pair = certificate(tmp_path)
    async with speaking(configured, pair) as (port, _):
        first = written(pair)
        other = tmp_path / "other"
        other.mkdir()
        shutil.copy(certificate(other)["certificate"], pair["certificate"])
        told = ""
        async with asyncio.timeout(300):
            while "the key doesn't belong to the certificate" not in told:
                await asyncio.sleep(0.02)
                told += capsys.readouterr().out
        assert "remedy='name the key that it was made with'" in told
        assert await shown(port) == first
        shutil.copy(str(other / "key.pem"), pair["key"])
        async with asyncio.timeout(300):
            while await shown(port) != written(pair):
                await asyncio.sleep(0.02)


async def test_an_expired_certificate_never_replaces_a_good_one(
    configured: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tls, "LOOK", 0.02)
    pair = certificate(tmp_path)
    async with speaking(configured, pair) as (port, _):
        first, told = written(pair), ""
        certificate(tmp_path, days=-1)
        async with asyncio.timeout(10):
            while "the new certificate has expired" not in told:
                await asyncio.sleep(0.02)
                told += capsys.readouterr().out
        assert "kept='the old one'" in told
        assert await shown(port) == first
        certificate(tmp_path)
        async with asyncio.timeout(10):
            while await shown(port) != written(pair):
                await asyncio.sleep(0.02)
    assert (told + capsys.readouterr().out).count("the new certificate has expired") == 1


def test_of_two_pairs_the_one_that_is_good_now_is_shown(tmp_path: Path) -> None:
    pair, now, lines = certificate(tmp_path, days=-1), [time.time()], KeptLog()
    files = Path(pair["certificate"]), Path(pair["key"])
    shows = tls.Certificates(*files, tls_context, lambda: now[0], lines)
    assert lines.lines[-1]["reason"] == "it has expired"
    certificate(tmp_path, days=-2)
    shows.renew()
    assert shows._span[1] == written(pair).not_valid_after_utc, "neither is good: the newer one is shown"
    certificate(tmp_path)
    good = written(pair).not_valid_after_utc
    shows.renew()
    certificate(tmp_path, since=-3)
    for _ in range(3):
        shows.renew()
    assert shows._span[1] == good
    assert "is not valid before" in lines.lines[-1]["reason"]
    assert [line.get("kept") for line in lines.lines].count("the old one") == 1
    now[0] += 4 * 86400
    shows.renew()
    assert shows._span[1] == written(pair).not_valid_after_utc, "its time has come"


async def test_a_browser_is_told_to_come_by_https_alone_where_tls_is_the_listener_s_own(
    configured: Write, tmp_path: Path, listening: Start
) -> None:
    pair = certificate(tmp_path)
    async with speaking(configured, pair) as (port, _):
        trusting = ssl.create_default_context(cafile=pair["certificate"])
        async with client(f"https://localhost:{port}") as browser:
            for path in ("/", "/healthz", "/nowhere", "/api/v1/sites"):
                async with browser.session.get(browser.url + path, ssl=trusting) as response:
                    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
    proxied = {"host": "127.0.0.1", "port": 0, "drain": 5, "trusted_proxies": ["127.0.0.1"]}
    async with listening(server=proxied) as plain:
        _, _, headers = await plain.call("GET", "/", token=None, headers={"X-Forwarded-Proto": "https"})
        assert "Strict-Transport-Security" not in headers, "that is the proxy's to say"


async def test_a_certificate_that_is_away_for_a_day_is_taken_up_when_it_is_back(
    configured: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tls, "LOOK", 0.02)
    monkeypatch.setattr(tls, "DAY", 0.05)
    pair = certificate(tmp_path)
    async with speaking(configured, pair) as (port, _):
        first = written(pair)
        take_away(pair)
        told = ""
        async with asyncio.timeout(300):
            while told.rpartition("one of the files can't be read")[2].count("expires=") < 3:
                await asyncio.sleep(0.02)
                told += capsys.readouterr().out
        assert await shown(port) == first
        certificate(tmp_path)
        async with asyncio.timeout(300):
            while await shown(port) != written(pair):
                await asyncio.sleep(0.02)


async def test_a_version_before_1_2_is_not_spoken(configured: Write, tmp_path: Path) -> None:
    async with speaking(configured, certificate(tmp_path)) as (port, _):
        with (
            pytest.warns(DeprecationWarning, match="TLSv1_1"),
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            await shown(port, ssl.TLSVersion.TLSv1_1)


async def test_plain_http_on_a_port_with_tls_is_told_as_such_without_a_trace(
    configured: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with speaking(configured, certificate(tmp_path)) as (port, _):
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("/healthz", method="GET"))
            assert not (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
    said = capsys.readouterr()
    assert said.out.count("the client speaks plain HTTP, but this port is TLS") == 1
    assert "Traceback" not in said.out + said.err


async def test_a_handshake_that_does_not_come_ends_the_connection(configured: Write, tmp_path: Path) -> None:
    server = {"host": "127.0.0.1", "port": 0, "drain": 5, "head_timeout": 0.2, "tls": certificate(tmp_path)}
    async with System(load(configured(server=server))) as system:
        await system.listen()
        reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
        async with asyncio.timeout(300):
            assert await reader.read() == b""
        writer.close()
        while len(system.edge.connections):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("days", "level"), [(90, "info"), (13, "warning"), (-1, "warning")])
async def test_the_log_tells_until_when_the_certificate_is_good(
    configured: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], days: float, level: str
) -> None:
    async with speaking(configured, certificate(tmp_path, days=days + 0.5)):
        pass
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "] certificate " in line]
    assert f"[{level:9}]" in line
    assert f"days={days}" in line


async def test_the_commands_know_the_listener_by_the_configured_certificate(
    configured: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tls, "LOOK", 3600
    )  # The new pair is for the commands; the listener keeps the old one.
    pair = certificate(tmp_path)
    async with speaking(configured, pair) as (port, file):
        file.write_text(file.read_text().replace("port: 0", f"port: {port}", 1))
        shell = Shell(file)
        assert (await shell("runs", "list", "--json")).status == 0
        sent = await shell("hook", "send", "forge", "--ping")
        assert (sent.status, sent.out.split()[0]) == (0, "200")
        named = ("--url", f"https://localhost:{port}")
        assert "certificate" in (await shell("runs", "list", *named)).err.lower()
        assert (await shell("runs", "list", "--json", *named, "--ca", pair["certificate"])).status == 0
        shell.environ["SYNC_STAGING_CA"] = pair["certificate"]
        assert (await shell("runs", "list", "--json", *named)).status == 0
        shell.environ["SYNC_STAGING_CA"] = str(tmp_path / "missing.pem")
        assert "can't be read" in (await shell("runs", "list", *named)).err
        del shell.environ["SYNC_STAGING_CA"]
        certificate(tmp_path)
        assert (await shell("runs", "list")).status == 2


def refusal(configured: Write, pair: dict[str, str]) -> str:
    """What is said of a configuration with this pair."""
    with pytest.raises(ConfigurationError) as caught:
        load(configured(server={"tls": pair}))
    return caught.value.message


def test_a_key_that_others_may_read_is_refused(configured: Write, tmp_path: Path) -> None:
    pair = certificate(tmp_path)
    Path(pair["key"]).chmod(0o640)
    assert f"run chmod 600 {pair['key']}" in refusal(configured, pair)


def test_a_pair_that_does_not_fit_is_refused(configured: Write, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    pair = {**certificate(tmp_path), "key": certificate(tmp_path / "other")["key"]}
    assert "server.tls: can't be used: the key doesn't belong to the certificate" in refusal(configured, pair)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(
    configured: Write, tmp_path: Path
) -> None:
    pair = certificate(tmp_path, password=b"secret")
    assert "the key needs a password; write it without one" in refusal(configured, pair)


def test_files_that_are_missing_or_no_pem_are_refused(configured: Write, tmp_path: Path) -> None:
    pair = certificate(tmp_path)
    missing = {**pair, "key": str(tmp_path / "missing.pem")}
    assert "one of the files can't be read" in refusal(configured, missing)
    Path(pair["certificate"]).write_text("no certificate")
    assert "write a certificate and its key as PEM" in refusal(configured, pair)
