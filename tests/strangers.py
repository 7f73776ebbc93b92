"""What strangers do at a listener's door: raw bytes, many connections, many addresses of loopback."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.listening import push, signed

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Tls = ssl.SSLContext | None


def trusting() -> ssl.SSLContext:
    """TLS of a client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def loopback(number: int) -> str:
    """One of many client addresses."""
    return f"127.1.{number // 250}.{1 + number % 250}"


async def connect(port: int, source: str = "127.0.0.1", tls: Tls = None) -> Ends:
    """A connection from an address."""
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), ssl=tls)


@asynccontextmanager
async def connections(port: int, sources: Sequence[str], tls: Tls = None) -> AsyncIterator[list[Ends]]:
    """A connection from each of these addresses, all closed at last."""
    opened: list[Ends] = []
    try:
        opened += [await connect(port, source, tls) for source in sources]
        yield opened
    finally:
        for _, writer in opened:
            writer.close()
        for _, writer in opened:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def answers(port: int, sent: bytes, source: str = "127.0.0.1", tls: Tls = None) -> bytes:
    """Everything that is answered to these bytes, until the connection ends."""
    async with connections(port, [source], tls) as [(reader, writer)]:
        writer.write(sent)
        said = b""
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(1 << 16):
                said += part
        return said


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    """A request's head, after which the connection ends."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def delivery(key: str, body: bytes | None = None, secret: str | None = None) -> bytes:
    """A whole signed delivery to the hook `forge`."""
    body = push() if body is None else body
    headers = signed(body, key) if secret is None else signed(body, key, secret=secret)
    said = [f"{name}: {value}" for name, value in headers.items()]
    return head("/hooks/forge", *said, f"Content-Length: {len(body)}") + body


async def delivered(port: int, key: str, source: str = "127.0.0.1") -> bool:
    """Whether a genuine delivery of the usual size is accepted."""
    return (await answers(port, delivery(key), source)).startswith(b"HTTP/1.1 202")


def resident(pid: int) -> float:
    """The memory of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def worked(pid: int) -> float:
    """The seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def certificate(
    folder: Path, *, days: float = 90, since: float = 100, password: bytes = b""
) -> dict[str, str]:
    """A new certificate, good since and for so many days, and its key, in the same two files each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=since))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked)
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").touch(0o600)
    (folder / "key.pem").write_bytes(secret)
    return {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}


def status_of(answer: bytes) -> int:
    """The status of an answer."""
    return int(answer.split(b" ", 2)[1])


async def cut(reader: asyncio.StreamReader) -> bool:
    """Wait until a connection ends; whether that was without an answer."""
    try:
        return not await reader.read()
    except ConnectionError:
        return True
