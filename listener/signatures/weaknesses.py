"""Secrets that can be guessed, or that differ from the text that the sender has.

A weak secret is not refused, because what ran yesterday must run today. The log warns of it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator

LEAST = 16
"""Bytes of a secret, or of the password in `user:password`. Shorter ones can be guessed."""

REMEDY = "make another one with openssl rand -hex 32"

COMMON_SECRETS = frozenset(
    """
    secret password passwort changeme admin administrator root test token webhook hook letmein
    qwerty example default none null 123456 12345678 123456789 1234567890 welcome foo foobar hunter2
    s3cr3t topsecret github gitlab gitea forgejo gogs bitbucket azure deployer crafter craftercms
    staging live sync syncstaging itsasecrettoeverybody whsecmfkq9r8gkyqrtwjupd8ilpzio2lalasw
    your256bitsecret yoursecretkeyhere yoursecretgoeshere yoursecret yourtoken yourwebhooksecret
    yourwebhooksecrethere mywebhooksecret mysupersecretkey supersecret supersecretpassword
    thisisasecret thisisasecretkey thisisaverysecretkey correcthorsebatterystaple changemeplease
    pleasechangeme replacewithyoursecret passwordpassword secretsecretsecret 0123456789abcdef
    1234567890abcdef 1234567890123456 12345678901234567890 abcdefghijklmnopqrstuvwxyz
    qwertyuiopasdfghjklzxcvbnm
    """.split()  # noqa: SIM905 (a list of so many would fill the page)
)
"""Secrets from documentation and from lists of passwords: only their letters and digits, in lower case."""

VARIETY = 5
"""The least number of different characters in a random text of that length."""

_QUOTES = {('"', '"'), ("'", "'"), ("`", "`"), ("\u201c", "\u201d"), ("\u2018", "\u2019"), ("<", ">")}
_MARK = "\ufeff"


def weakness(scheme: str, hook: str, secret: str, *, password: bool) -> str:
    """Return every weakness of a hook's secret, and what to do; empty for a strong one.

    `password` says that the secret is `user:password`: then the password counts.
    """
    user, _, text = secret.partition(":") if password else ("", "", secret)
    faults = [*_spelling(secret, text), *_guessed({scheme, hook, user}, text)]
    return f"the {'password' if password else 'secret'} {' and '.join(faults)}: {REMEDY}" if faults else ""


def is_common_secret(sha256: str, name: str) -> bool:
    """Return whether a token's hash is the hash of a text that anybody would try; `name` is the token's."""
    tried = {"", name, name.lower(), *COMMON_SECRETS}
    return sha256 in {hashlib.sha256(text.encode()).hexdigest() for text in tried}


def _spelling(secret: str, text: str) -> Iterator[str]:
    """Yield why a secret may differ from the sender's, whose form removes such characters."""
    if _MARK in (secret[:1], text[:1]):
        yield "begins with a byte order mark, which an editor has added"
    if secret.strip() != secret or text.strip() != text:
        yield "begins or ends with white space"
    plain = text.strip().strip(_MARK)
    if not plain.isprintable():
        yield "contains an invisible character"
    if len(plain) > 1 and (plain[0], plain[-1]) in _QUOTES:
        yield "is in quotes"


def _guessed(names: Iterable[str], text: str) -> Iterator[str]:
    """Yield why a secret can be guessed; `names` are the names of its hook, scheme and user."""
    plain = text.strip().strip(_MARK)
    letters = re.sub(r"[^a-z0-9]", "", plain.lower())
    if plain.casefold() in {name.casefold() for name in names if name}:
        yield "is a name that anybody can see"
    elif letters in COMMON_SECRETS:
        yield "is a well-known one"
    elif len(plain) >= LEAST and len(set(plain)) < VARIETY:
        yield "repeats a few characters"
    if len(plain.encode()) < LEAST:
        yield f"has fewer than {LEAST} bytes"
