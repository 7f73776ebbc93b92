"""The types of single settings: names, addresses, branches, URLs, durations, times.

Every refusal says what to write instead, and repeats nothing of what was written.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Final
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError, PydanticKnownError

from listener.config.address import address_fault
from listener.config.references import Referenced
from listener.networks import Network

OFF: Final = "off"
"""Instead of an address to listen on: nothing listens."""

RULE: Final = "rule"
"""The type of the errors that are raised here, with a text of our own."""

LONGEST_DURATION = 86400.0
"""Seconds: a day."""
LONGEST_KEEPING = 3650 * 86400.0
"""Seconds: ten years."""

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_BRANCH_REFUSED = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_LISTEN = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")
_STUDIO = re.compile(
    r"https?://(?:[A-Za-z0-9][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
    r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/studio/?"
)
_WRITE_STORE = (
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


def rule(text: str) -> PydanticCustomError:
    """Return the error that refuses a setting with this text."""
    return PydanticCustomError(RULE, "{text}", {"text": text})


def matching(pattern: str, text: str) -> AfterValidator:
    """Return a check that the whole setting matches a pattern; `text` is the refusal."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise rule(text)
        return value

    return AfterValidator(check)


def checked(find_fault: Callable[[str], str]) -> AfterValidator:
    """Return a check that refuses a setting with the text that a function returns, unless it is empty."""

    def check(value: str) -> str:
        fault = find_fault(value)
        if fault:
            raise rule(fault)
        return value

    return AfterValidator(check)


def site_fault(site: str) -> str:
    """Return what is wrong with a site id; Studio's own rule is the same without dots."""
    if "*" in site:
        if re.fullmatch(r"[a-z0-9_-]*\*[a-z0-9_-]*", site):
            return ""
        return "is not a pattern of site ids; write * alone or among lower-case letters, digits, - and _"
    if not re.fullmatch(r"[a-z0-9_][a-z0-9_.-]{0,254}", site) or ".." in site:
        return "is not a site id; use lower-case letters, digits, - and _, as in Studio"
    return ""


def branch_fault(branch: str) -> str:
    """Return what is wrong with a branch name (https://git-scm.com/docs/git-check-ref-format)."""
    parts = branch.split("/")
    if branch.endswith("_in_progress"):
        return "ends with _in_progress, which marks a publish by Studio; write a name without it"
    if branch.startswith("refs/"):
        return "is a full ref; write the branch alone, without refs/heads/"
    if (
        _BRANCH_REFUSED.search(branch)
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
        or branch.startswith("-")
        or branch.endswith(".")
        or branch in {"@", "HEAD"}
        or len(branch.encode()) > 200  # noqa: PLR2004 (leaves room for suffixes in a file name of 255 bytes)
    ):
        return "is not a branch name that git accepts; write one such as staging"
    return ""


def listen_fault(listen: str) -> str:
    """Return what is wrong with an address to listen on."""
    match = _LISTEN.fullmatch(listen)
    if listen != OFF and (not match or int(match[1]) >= 65536):  # noqa: PLR2004 (one more than the highest port)
        return "is not an address to listen on; write one such as 127.0.0.1:9787 or [::1]:9787, or off"
    return ""


def path_fault(path: str) -> str:
    """Return what is wrong with a repository's path on its host."""
    if not re.fullmatch(r"/[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+", path):
        return "is not an absolute path; write one such as /opt/crafter/data/repos/sites/mysite/published"
    return ""


def plain_path(path: str) -> str:
    """Return a path in its simplest form: `/srv//a/./b/` is `/srv/a/b`."""
    return re.sub(r"/(?:\.?/)+", "/", f"{path}/").rstrip("/") or "/"


def studio_fault(url: str) -> str:
    """Return what is wrong with Studio's URL."""
    write = "write Studio's own address, such as http://studio.example.com:8080/studio"
    if re.search("[@?#]", url):
        return f"contains a user, a query or a fragment; {write}, and its tokens as separate settings"
    match = _STUDIO.fullmatch(url)
    if not match or not 0 < int(match[1] or 80) < 65536:  # noqa: PLR2004 (one more than the highest port)
        return f"is not a Studio URL; {write}, with /studio at its end"
    return ""


def network(value: object) -> object:
    """Return the network that text names; raise a refusal for other text."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    try:
        found = ipaddress.ip_network(value)
    except ValueError:
        raise rule(_network_fault(value)) from None
    if isinstance(found.network_address, ipaddress.IPv6Address) and found.network_address.ipv4_mapped:
        raise rule("is IPv4 inside IPv6; write it as IPv4")
    return found


def _network_fault(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "is not a network; write one such as 192.0.2.0/24, or one address"
    return "is an address in a network; write the address alone, or the network's first address before the /"


def not_everybody(value: Network) -> Network:
    """Return the network of a trusted proxy; raise a refusal for the whole address space."""
    if not value.prefixlen:
        raise rule(
            "covers every address, so anybody could claim any address; write the proxies' own addresses"
        )
    return value


def store_fault(store: str) -> str:
    """Return what is wrong with the store's URL."""
    if store.startswith(("postgresql:", "postgres:")):
        return _postgres_fault(store)
    if not _SQLITE.fullmatch(store) or ":memory:" in store:
        return f"is not the URL of a store; {_WRITE_STORE}"
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
    """Yield the password of a store's URL, decoded and as written there."""
    password = "" if store.startswith("sqlite:") else urlsplit(store).password
    if password:
        yield unquote(password)
        yield password


def public_url(store: str) -> str:
    """Return a store's URL without a password and without options."""
    return store if store.startswith("sqlite:") else _PASSWORD.sub(r"\1@", store.partition("?")[0])


def unverified(store: str) -> bool:
    """Return whether a store is on another machine, and nothing verifies that it is the right one."""
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


def loopback(host: str) -> bool:
    """Return whether an address is a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def seconds(value: object) -> object:
    """Return the seconds of a number or of text such as `250ms`; raise a refusal for anything else."""
    number = _seconds(value)
    if not 0 <= number <= LONGEST_DURATION:
        raise rule("is not a duration; write seconds, or a number with ms, s, m or h, of at most 24h")
    return number


def long_seconds(value: object) -> object:
    """Return the seconds of a number or of text such as `30d`; raise a refusal for anything else."""
    number = _seconds(value)
    if not 0 <= number <= LONGEST_KEEPING:
        raise rule("is not a duration; write a number with m, h or d, of at most 3650d")
    return number


def _seconds(value: object) -> float:
    """Return the seconds of a number or of text; not a number for anything else."""
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        number = float(match[1]) * _UNITS[match[2] or ""]
    return number


def more_than_none(value: float) -> float:
    """Return a duration that is not 0."""
    if value <= 0:
        raise rule("must be greater than 0; write a longer duration")
    return value


def moment(value: object) -> object:
    """Return the Unix seconds of a time stamp with a zone (RFC 3339); raise a refusal for anything else."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    try:
        if _MOMENT.fullmatch(value):
            return datetime.fromisoformat(value.upper()).timestamp()
    except (ValueError, OverflowError):
        pass
    raise rule("is not a time with its zone; write one such as 2027-01-31T00:00:00Z")


def whole(value: object) -> object:
    """Return the number that a reference's text is."""
    return int(value) if isinstance(value, Referenced) and re.fullmatch("[0-9]{1,18}", value) else value


def flag(value: object) -> object:
    """Return the yes or no that a reference's text is."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, Referenced) else value


Name = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}",
        "is not a name; use at most 64 letters, digits, dots, - and _, and begin with a letter, a digit or _",
    ),
]
SiteId = Annotated[str, checked(site_fault)]
BranchName = Annotated[str, checked(branch_fault)]
Address = Annotated[str, checked(address_fault)]
Listen = Annotated[str, checked(listen_fault)]
LocalPath = Annotated[
    str, matching(r"/[^\x00-\x1f\x7f]+", "is not an absolute path; write one such as /var/cache/sync-staging")
]
RemotePath = Annotated[str, checked(path_fault), AfterValidator(plain_path)]
StoreUrl = Annotated[str, checked(store_fault)]
StudioRole = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,62}[A-Za-z0-9_.-]|[A-Za-z0-9_]",
        "is not the name of a Studio role; write one such as publisher",
    ),
]
StudioUrl = Annotated[str, checked(studio_fault), AfterValidator(lambda url: url.removesuffix("/"))]
StudioToken = Annotated[
    str, matching("[!-~]{1,8192}", "is not a token; write it on one line, without spaces, as Studio shows it")
]
"""Printable ASCII: it stands in a header, or in a URL."""
NetworkOf = Annotated[Network, BeforeValidator(network)]
ProxyNetwork = Annotated[NetworkOf, AfterValidator(not_everybody)]
User = Annotated[
    str,
    matching(r"[A-Za-z0-9_][A-Za-z0-9_.\\-]{0,254}\$?", "is not a user name; write one such as crafter"),
]
RepositoryName = Annotated[
    str,
    matching(
        r"[^/\x00-\x20\x7f](?:[^/\x00-\x1f\x7f]*/[^/\x00-\x20\x7f])+[^/\x00-\x1f\x7f]*",
        "is not a full repository name; write owner/name, as the forge shows it",
    ),
]
HeaderName = Annotated[
    str,
    matching(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", "is not a header name; write one such as X-Signature"),
]
ListKey = Annotated[str, matching(r"[A-Za-z0-9_.-]{1,32}", "is not a key in a header; write one such as v1")]
BodyPath = Annotated[
    str,
    matching(
        r"[^.\x00-\x1f\x7f]{1,64}(?:\.[^.\x00-\x1f\x7f]{1,64}){0,7}",
        "is not a place in a body; write its key, with dots between nested keys: repository.full_name",
    ),
]
Sha256 = Annotated[
    str,
    matching("[0-9a-f]{64}", "is not a SHA-256; write the 64 lower-case hex digits that token new prints"),
]
Moment = Annotated[float, BeforeValidator(moment)]
Duration = Annotated[float, BeforeValidator(seconds)]
Keeping = Annotated[float, BeforeValidator(long_seconds)]
Limit = Annotated[float, BeforeValidator(seconds), AfterValidator(more_than_none)]
Whole = Annotated[int, BeforeValidator(whole)]
Flag = Annotated[bool, BeforeValidator(flag)]
