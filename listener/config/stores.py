"""The URL of the store: what it may be, and how it is told without its password."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

_WRITE = (
    "write sqlite:///var/lib/sync-staging/listener.db (the part after sqlite:// is the absolute path), "
    "or postgresql://USER@HOST/DATABASE"
)
_SQLITE = re.compile(r"sqlite:///[^?#\x00-\x1f\x7f]*[^?#/\x00-\x1f\x7f]")
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\])(?::[0-9]{1,5})?"
_POSTGRES = re.compile(
    rf"postgres(?:ql)?://(?:[^\s:@/?#]+(?::[^\s:@/?#]*)?@)?(?:{_HOST}(?:,{_HOST})*)?"
    r"/[^\s/?#]+(?:\?[^\s?#\x00-\x1f\x7f]+)?"
)
_PASSWORD = re.compile(r"(//[^:@/]*):[^@/]*@")
_VERIFIED = ("verify-ca", "verify-full")
_HERE = ("localhost", "127.0.0.1", "::1")


def store_fault(store: str) -> str:
    """Return what is wrong with the store's URL."""
    if store.startswith(("postgresql:", "postgres:")):
        return _postgres_fault(store)
    if not _SQLITE.fullmatch(store) or ":memory:" in store:
        return f"is not the URL of a store; {_WRITE}"
    return ""


def _postgres_fault(store: str) -> str:
    if not _POSTGRES.fullmatch(store):
        return (
            "is not the URL of a database; write postgresql://USER:PASSWORD@HOST/DATABASE, "
            "with %40 %3A %2F %3F %23 %25 for @ : / ? # % in the password"
        )
    if "password" in parse_qs(urlsplit(store).query):
        return "has the password among its options; write postgresql://USER:PASSWORD@HOST/DATABASE"
    return ""


def store_secrets(store: str) -> Iterator[str]:
    """Yield the password of a store's URL, as it is and as it stands there."""
    password = "" if store.startswith("sqlite:") else urlsplit(store).password
    if password:
        yield unquote(password)
        yield password


def told(store: str) -> str:
    """Return a store's URL without a password and without options."""
    return store if store.startswith("sqlite:") else _PASSWORD.sub(r"\1@", store.partition("?")[0])


def unverified(store: str) -> bool:
    """Return whether a store lies on another machine, and nothing makes sure that it is that one."""
    if store.startswith("sqlite:"):
        return False
    url = urlsplit(store)
    options = parse_qs(url.query)
    hosts = url.netloc.rpartition("@")[2] or options.get("host", ["/"])[0]
    elsewhere = any(
        not host.startswith("/") and _without_port(host) not in _HERE for host in hosts.split(",")
    )
    return elsewhere and options.get("sslmode", [""])[0] not in _VERIFIED


def _without_port(host: str) -> str:
    return re.sub(r"\A\[?([^\]]*?)\]?(:[0-9]+)?\Z", r"\1", host) if "[" in host else host.partition(":")[0]
