"""What a configuration may say, and what is told about one that says something else."""

import copy
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from listener.access import Role
from listener.config.describe import describe, to_dict
from listener.config.settings import Settings, load
from listener.deliveries import Payload
from listener.errors import ConfigurationError
from listener.signatures import Form
from listener.sites import Policy

STANDARD_SECRET = "whsec_5WUXqVJvX2TzJfqVbQ6mC0kz8n3m1bTu"
FORGE_SECRET = "6b1d0c2f.8a4e97d35f60b1c28e7a9d44"
ANOTHER_SECRET = "c3f09a7be15d24688d0e5b7a91f3c62d"


def valid() -> dict[str, Any]:
    """A configuration with one of everything; its files lie beside it."""
    return {
        "ssh": {"known_hosts": "known_hosts", "identity": "id_ed25519"},
        "hosts": {"studio": {"address": "studio.example.com", "user": "crafter"}},
        "sites": {
            "mysite": {
                "repository": {"host": "studio", "path": "/srv/mysite/published"},
                "environments": {
                    "staging": {"follow": True},
                    "qa": {"branch": "quality", "policy": "reset", "follow": False},
                },
            }
        },
        "hooks": {
            "forge": {
                "scheme": "github",
                "secrets": ["file:forge-secret"],
                "repositories": {"acme/my.site": "mysite"},
            },
            "publisher": {
                "scheme": "standard-webhooks",
                "secrets": ["credential:publisher"],
                "sites": ["mysite"],
            },
        },
        "tokens": [
            {"name": "ci", "sha256": "a" * 64, "role": "admin"},
            {
                "name": "editors",
                "sha256": "b" * 64,
                "role": "member",
                "sites": ["mysite"],
                "expires": "2030-01-31T00:00:00Z",
            },
        ],
    }


class Folder:
    """A folder with a configuration and all that it refers to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "listener.yaml"
        self.credentials = path / "credentials"
        self.credentials.mkdir()
        self.environ = {"CREDENTIALS_DIRECTORY": str(self.credentials)}
        self.put("known_hosts", "studio.example.com ssh-ed25519 AAAA\n", 0o644)
        self.put("id_ed25519", "a key\n")
        self.put("forge-secret", f"{FORGE_SECRET}\n")
        self.put("studio-token", "studio.access-token_4711\n")
        self.put("credentials/publisher", STANDARD_SECRET, 0o440)

    def put(self, name: str, content: str | bytes, mode: int = 0o600) -> Path:
        file = self.path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        return file

    def load(self, tree: object) -> Settings:
        self.put("listener.yaml", yaml.safe_dump(tree, sort_keys=False))
        return load(self.file, self.environ)

    def refused(self, tree: object) -> str:
        with pytest.raises(ConfigurationError) as refused:
            self.load(tree)
        return refused.value.message


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def changed(path: str, value: object) -> dict[str, Any]:
    """The valid configuration with one place set; `None` takes the place away. `/` leads to it."""
    tree = valid()
    *above, last = path.split("/")
    node: Any = tree
    for step in above:
        node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
    if value is None:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value
    return tree


def test_a_valid_configuration_becomes_the_core_s_own_values(folder: Folder) -> None:
    loaded = folder.load(valid())
    host = loaded.hosts["studio"]
    assert (host.address, host.port, host.user) == ("studio.example.com", 22, "crafter")
    assert host.known_hosts == str(folder.path / "known_hosts")
    assert host.identity == str(folder.path / "id_ed25519")
    staging = loaded.sites.environment("mysite", "staging")
    (leg,) = staging.legs
    assert (leg.branch, leg.live, leg.policy) == ("staging", "live", Policy.FORWARD)
    assert str(leg) == "studio:/srv/mysite/published"
    assert leg.own
    assert loaded.sites.site("mysite").following == (staging,)
    assert loaded.sites.environment("mysite", "qa").legs[0].branch == "quality"
    forge, publisher = loaded.hooks["forge"], loaded.hooks["publisher"]
    assert forge.secrets == (FORGE_SECRET.encode(),)
    assert (forge.repositories, forge.body_limit) == ({"acme/my.site": "mysite"}, 25 << 20)
    assert (publisher.sites, publisher.site, publisher.body_limit) == (frozenset({"mysite"}), None, 1 << 20)
    ci, editors = loaded.tokens
    assert (ci.role, ci.sites, ci.expires) == (Role.ADMIN, frozenset(), None)
    assert (editors.role, editors.sites, editors.expires) == (
        Role.MEMBER,
        frozenset({"mysite"}),
        1896048000.0,
    )
    assert loaded.secrets == {FORGE_SECRET.encode(), STANDARD_SECRET.encode()}


def test_what_is_left_out_has_its_default(folder: Folder) -> None:
    loaded = folder.load(valid())
    assert loaded.server.model_dump() == {
        "host": "127.0.0.1",
        "port": 8787,
        "wait": 55,
        "body_timeout": 10,
        "drain": 30,
        "session": 43200,
        "tls": None,
        "trusted_proxies": [],
        "head_timeout": 10,
        "connections": 1000,
        "refusals": 30,
        "unverified_bytes": 256 << 20,
    }
    assert (loaded.store, loaded.store_name) == (
        "sqlite:///var/lib/sync-staging/listener.db",
        "/var/lib/sync-staging/listener.db",
    )
    sync, retry = loaded.sync, loaded.sync.retry
    assert (sync.quiet, sync.patience, sync.step_timeout, sync.connect_timeout) == (2, 900, 60, 15)
    assert (sync.concurrency, retry.attempts, retry.first, retry.most) == (16, 20, 1, 300)
    assert (loaded.log.level, loaded.log.format) == ("info", "auto")


@pytest.mark.parametrize(
    ("written", "seconds"), [(2, 2), (0.5, 0.5), ("250ms", 0.25), ("2s", 2), ("15m", 900), ("1.5h", 5400)]
)
def test_a_duration_is_seconds_or_has_a_unit(folder: Folder, written: object, seconds: float) -> None:
    assert folder.load(changed("sync/patience", written)).sync.patience == seconds


OWN = {"scheme": "hmac", "secrets": ["file:forge-secret"], "site": "mysite", "hmac": {"header": "X-Sign"}}

REFUSED = [
    # the edge
    (
        "server",
        {"tls": {"certificate": "c.pem"}},
        "server.tls.key: is missing: the path of the certificate's",
    ),
    ("server", {"tls": {"certificate": "c", "key": "k"}}, "server.tls: can't be used: one of the files"),
    ("server", {"trusted_proxies": ["0.0.0.0/0"]}, "server.trusted_proxies.0: covers every address"),
    (
        "server",
        {"trusted_proxies": ["proxy"]},
        "server.trusted_proxies.0: is not a network; write one such as",
    ),
    ("server", {"unverified_bytes": 7}, "server.unverified_bytes: must be at least 134217728"),
    ("server", {"refusals": 0}, "server.refusals: must be at least 1"),
    ("hooks/forge/networks", [], "hooks.forge.networks: is empty"),
    ("hooks/forge/networks", ["192.0.2.1/24"], "hooks.forge.networks.0: is an address in a network"),
    ("hooks/forge/networks", ["::ffff:10.0.0.0/104"], "hooks.forge.networks.0: is IPv4 inside IPv6"),
    # settings that there are not, and those that are missing
    (
        "hooks/forge/secret",
        "x",
        "hooks.forge.secret: is an unknown setting; did you mean secrets? Known: branch",
    ),
    (
        "telemetry",
        {},
        "telemetry: is an unknown setting; Known: history, hooks, hosts, include, log, metrics, serv",
    ),
    ("ssh", None, "ssh: is missing: a map of known_hosts, and of identity or agent"),
    ("ssh/identity", None, "ssh.identity: is missing: the path of the private key"),
    ("hosts/studio/user", None, "hosts.studio.user: is missing: the user that owns the repositories"),
    ("hosts", {}, "hosts: is empty: write a map of repo hosts"),
    ("sites/mysite/environments", {}, "environments: is empty: write a map of the site's staging"),
    # types
    ("server/port", "8787", "server.port: is text, not a whole number; write a whole number without quotes"),
    ("server/port", True, "server.port: is true or false, not a whole number; write the port"),
    ("server/port", 70000, "server.port: must be at most 65535"),
    ("sync/concurrency", 0, "sync.concurrency: must be at least 1"),
    ("hosts/studio/via", "gate", "hosts.studio.via: is not a configured host"),
    ("hosts/studio/via", "studio", "hosts.studio.via: leads back to the host itself"),
    ("hosts/studio/user", 7, "hosts.studio.user: is a number, not text; put it in quotes"),
    ("hosts/studio", "x", "hosts.studio: is text, not a map of address, port, user, via"),
    ("hooks/forge/secrets", "x", "hooks.forge.secrets: is text, not a list; write a list of one or more"),
    ("hooks/forge/secrets/0", {"env": "X"}, "secrets.0: is a map, not text; write env: and the name in one"),
    ("sites/mysite/environments/qa/follow", "yes", "qa.follow: is text, not true or false"),
    (
        "sites/mysite/environments/qa/policy",
        "merge",
        "qa.policy: must be 'forward', 'reset' or 'fast-forward'",
    ),
    ("log/level", "loud", "log.level: must be 'debug', 'info', 'warning' or 'error'"),
    ("sync/quiet", "2 weeks", "sync.quiet: is not a duration; write seconds, or a number with ms, s, m or h"),
    ("sync/quiet", -1, "sync.quiet: is not a duration"),
    ("sync/quiet", "25h", "sync.quiet: is not a duration"),
    ("sync/step_timeout", 0, "sync.step_timeout: must be greater than 0"),
    ("sync/backoff_most", "500ms", "sync.backoff_most: is shorter than sync.backoff"),
    # names and addresses
    ("hosts/a b", {"address": "a", "user": "u"}, 'hosts."a b": is not a name'),
    ("hosts/studio/address", "me@studio", "hosts.studio.address: holds a user"),
    ("hosts/studio/address", "studio:22", "hosts.studio.address: holds a port"),
    ("hosts/studio/address", "-oProxyCommand=x", "hosts.studio.address: is not a host name"),
    ("hosts/studio/user", "-x", "hosts.studio.user: is not a user name"),
    ("sites/My Site", {}, 'sites."My Site": is not a site id; use lower-case'),
    ("sites/a..b", {}, 'sites."a..b": is not a site id'),
    ("sites/brand-*-*", {}, "is not a pattern of site ids; write * alone"),
    (
        "sites/*",
        {
            "repository": {"host": "studio", "path": "/srv/x"},
            "environments": {"staging": {"follow": True}},
        },
        "path: must contain {site} once; write one",
    ),
    (
        "sites/mysite/repository/path",
        "/srv/{site}/published",
        "path: contains {site}, which only sites by pattern have",
    ),
    ("hooks/publisher/sites", ["brand-*"], "hooks.publisher.sites.0: is not a configured site"),
    (
        "sites/mysite/repository/host",
        "studoi",
        "repository.host: is not a configured host; did you mean studio?",
    ),
    ("sites/mysite/repository/path", "srv/x", "sites.mysite.repository.path: is not an absolute path"),
    ("sites/mysite/repository/path", "/srv\n/x", "sites.mysite.repository.path: is not an absolute path"),
    # branches
    ("sites/mysite/live", "main_in_progress", "sites.mysite.live: ends with _in_progress"),
    ("sites/mysite/live", "a..b", "sites.mysite.live: is not a branch name that git accepts"),
    ("sites/mysite/live", "refs/heads/live", "sites.mysite.live: is a full ref"),
    ("sites/mysite/live", "staging", "environments.staging: has the branch that it would follow"),
    ("sites/mysite/environments/qa/branch", "live", "qa.branch: has the branch that it would follow"),
    (
        "sites/mysite/environments/qa/branch",
        "staging",
        "qa.branch: has the same branch as sites.mysite.envir",
    ),
    (
        "sites/mysite/environments/qa/branch",
        "live/qa",
        "qa.branch: git can't have the branch live/qa beside live, the branch of sites.mysite.live",
    ),
    ("sites/mysite/live", "staging/live", "environments.staging: git can't have the branch staging beside"),
    (
        "sites/mysite/environments/qa/branch",
        "staging/qa/1",
        "qa.branch: git can't have the branch staging/qa/1 beside staging, the branch of",
    ),
    ("sites/mysite/environments/live", {"follow": True}, "live: live itself is never an environment"),
    ("sites/mysite/environments/x.lock", {"follow": True}, '"x.lock": is not a branch name that git accepts'),
    (
        "sites/mysite/environments/eu",
        {"follow": True, "repositories": []},
        "eu.repositories: is empty: write a list of one or more maps of host and path",
    ),
    (
        "sites/mysite/environments/eu",
        {"repositories": [{"host": "nowhere", "path": "/srv/eu.git"}]},
        "eu.repositories.0.host: is not a configured host",
    ),
    (
        "sites/mysite/environments/eu",
        {"repositories": [{"host": "studio", "path": f"/srv/eu.git{end}"} for end in ("", "/")]},
        "eu.repositories.1: has the same branch as sites.mysite.environments.eu.repositories.0",
    ),
    (
        "sites/mysite/environments/eu",
        {"repositories": [{"host": "studio", "path": "/srv/mysite/published"}]},
        "eu.follow: is missing: in live's own repository there is no default",
    ),
    (
        "sites/mysite/environments/eu",
        {"repositories": [{"host": "studio", "path": "/srv/mysite/published/", "branch": "live"}]},
        "eu.repositories.0: has the branch that it would follow",
    ),
    (
        "sites/mysite/environments/eu",
        {
            "repositories": [
                {"host": "studio", "path": "/srv/eu.git"},
                {"host": "studio", "path": "/srv//eu.git/.", "branch": "qa"},
            ]
        },
        "eu.repositories.1: is the same repository as sites.mysite.environments.eu.repositories.0; make",
    ),
    # the store
    ("store", "postgresql://db", "store: is not the URL of a database; write postgresql://USER"),
    ("store", "sqlite://x.db", "store: is not the URL of a store; write sqlite:///var"),
    ("store", "sqlite:///:memory:", "store: is not the URL of a store"),
    # hooks
    ("hooks/forge/secrets", None, "hooks.forge.secrets: is missing: a list of one or more secrets"),
    ("hooks/forge/secrets", [], "secrets: is empty: write a list of one or more secrets"),
    ("hooks/forge/secrets/0", "", "hooks.forge.secrets.0: is empty"),
    ("hooks/publisher/secrets/0", "plain", "secrets.0: is not a secret of Standard Webhooks; write whsec_"),
    (
        "hooks/forge/scheme",
        "githubb",
        "hooks.forge.scheme: is an unknown scheme; did you mean github? Known: azure",
    ),
    ("hooks/forge/repositories", {}, "hooks.forge: selects no site; write repositories"),
    ("hooks/forge/repositories", {"mysite": "mysite"}, "repositories.mysite: is not a full repository name"),
    ("hooks/forge/repositories", {"a/b": "yoursite"}, "a/b: is not a configured site; did you mean mysite?"),
    (
        "hooks/forge/site",
        "mysite",
        "hooks.forge.site: isn't a setting of the scheme github; write repositories",
    ),
    ("hooks/publisher/sites", ["x"], "hooks.publisher.sites.0: is not a configured site; Known: mysite"),
    ("hooks/publisher/sites", [], "hooks.publisher: selects no site; write site or sites"),
    ("hooks/publisher/site", "mysite", "hooks.publisher: has site and sites; write one of them"),
    ("hooks/forge/branch", "refs/heads/main", "hooks.forge.branch: is a full ref"),
    (
        "hooks/forge/environments",
        ["stagin"],
        "hooks.forge.environments.0: is not a configured environment; did you mean staging? Known: qa, sta",
    ),
    (
        "hooks/forge/repositories",
        {"acme/{site}": "mysite"},
        '"acme/{site}": must contain {site} once on both',
    ),
    (
        "hooks/forge/repositories",
        {"acme/x": "{site}"},
        "must contain {site} once on both sides or on neither",
    ),
    ("hooks/forge/repositories", {"{site}/{site}": "{site}"}, "write one such as 'acme/{site}': '{site}'"),
    ("hooks/forge/repositories", {"/acme/x": "mysite"}, "is not a full repository name"),
    ("hooks/forge/repositories", {"acme//x": "mysite"}, "is not a full repository name"),
    ("hooks/forge/repositories", {"acme/x/": "mysite"}, "is not a full repository name"),
    ("hooks/forge/payload", {"site": "s"}, "hooks.forge.payload: isn't a setting of the scheme github"),
    ("hooks/forge/events", ["push"], "hooks.forge.events: isn't a setting of the scheme github"),
    ("hooks/forge/hmac", {"header": "X"}, "hooks.forge.hmac: isn't a setting of the scheme github"),
    (
        "hooks/forge/scheme",
        "hmac",
        "hooks.forge.hmac: is missing: a map of header and of how the signature is made",
    ),
    (
        "hooks/forge/scheme",
        "basic",
        "hooks.forge.secrets.0: is not a user and a password; write",
    ),
    ("hooks/forge/scheme", "path", "hooks.forge.secrets.0: can't be part of a path; write 16 or more"),
    ("hooks/forge/scheme", "bearer", "payload.repository: is needed together with the hook's"),
    ("hooks/publisher/payload", {"repository": "r"}, "payload.repository: is needed together with"),
    ("hooks/publisher/payload", {"site": "a..b"}, "hooks.publisher.payload.site: is not a place in a body"),
    ("hooks/publisher/payload", {"id": "id"}, "payload.id: isn't a setting of the scheme standard-webhooks"),
    (
        "hooks/own",
        {**OWN, "payload": {"id": "a", "id_header": "B"}},
        "id_header: can't be used with id; write one",
    ),
    ("hooks/own", {**OWN, "payload": {"id_header": "Cookie"}}, "id_header: is a credential; write the h"),
    ("hooks/own", {**OWN, "hmac": {}}, "hooks.own.hmac.header: is missing: the header that the signature"),
    ("hooks/own", {**OWN, "hmac": {"header": "a b"}}, "hooks.own.hmac.header: is not a header name"),
    ("hooks/own", {**OWN, "hmac": {"header": "X", "algorithm": "sha1"}}, "must be 'sha256' or 'sha512'"),
    (
        "hooks/own",
        {**OWN, "hmac": {"header": "X", "tolerance": 0}},
        "hooks.own.hmac.tolerance: must be greater than 0",
    ),
    (
        "hooks/own",
        {**OWN, "hmac": {"header": "X", "timestamp_key": "t"}},
        "hooks.own.hmac.timestamp_key: needs signature_key",
    ),
    (
        "hooks/own",
        {**OWN, "hmac": {"header": "X", "signature_key": "v", "timestamp_key": "v"}},
        "hooks.own.hmac.timestamp_key: is the signature's key too",
    ),
    (
        "hooks/own",
        {**OWN, "hmac": {"header": "X", "signature_key": "v", "prefix": "p"}},
        "hooks.own.hmac.prefix: has no effect in a list of keys",
    ),
    (
        "hooks/own",
        {**OWN, "hmac": {"header": "X", "signature_key": "v", "timestamp_key": "t", "timestamp_header": "T"}},
        "hooks.own.hmac.timestamp_key: can't be used with timestamp_header; write one of them",
    ),
    (
        "hooks/own",
        {**OWN, "hmac": {"header": "X", "signed": "{timestamp}.{body}"}},
        "hooks.own.hmac.signed: must contain {body} once, and no {timestamp}; write one such as '{body}'",
    ),
    (
        "hooks/own",
        {**OWN, "hmac": {"header": "X", "timestamp_header": "T", "signed": "{body}"}},
        "hooks.own.hmac.signed: must contain {body} and {timestamp} once; write one such as '{time",
    ),
    # tokens
    ("tokens/0/sha256", "A" * 64, "tokens.0.sha256: is not a SHA-256; write the 64 lower-case hex digits"),
    ("tokens/0/sha256", "b" * 64, "tokens.1.sha256: is the same as tokens.0.sha256"),
    ("tokens/0/name", "editors", "tokens.1.name: is the same as tokens.0.name"),
    ("tokens/0/role", "owner", "tokens.0.role: must be 'admin' or 'member'"),
    ("tokens/0/sites", ["mysite"], "tokens.0.sites: has no effect for an admin"),
    ("tokens/1/sites", None, "tokens.1.sites: is missing: write the list of sites"),
    ("tokens/1/sites", ["other"], "tokens.1.sites.0: is not a configured site"),
    ("tokens/1/expires", "2030-01-31", "tokens.1.expires: is not a time with its zone"),
    ("tokens/1/expires", "2030-02-31T00:00:00Z", "tokens.1.expires: is not a time with its zone"),
    # references
    ("server/host", "env:ABSENT", "server.host: names an environment variable that is not set"),
    ("hooks/forge/secrets/0", "credential:../x", "secrets.0: is not the name of a credential"),
    ("hooks/forge/secrets/0", "credential:absent", "which is not a file; create it"),
    ("hooks/forge/secrets/0", "file:absent", "which is not a file; create it"),
    (
        "ssh/known_hosts",
        "absent",
        "is not the path of a readable file; make it with ssh-keyscan, and verify each key",
    ),
    ("ssh/identity", "absent", "is not the path of a readable file; make a key with ssh-keygen"),
]


@pytest.mark.parametrize(("path", "value", "told"), REFUSED, ids=[f"{p}={v!r}"[:60] for p, v, _ in REFUSED])
def test_what_is_wrong_is_told_with_its_place_and_what_to_write(
    folder: Folder, path: str, value: object, told: str
) -> None:
    assert told in folder.refused(changed(path, value))


def test_the_choice_of_following_is_explained_in_two_sentences(folder: Folder) -> None:
    message = folder.refused(changed("sites/mysite/environments/staging/follow", None))
    assert (
        "sites.mysite.environments.staging.follow: is missing: in live's own repository there is no"
        in message
    )
    assert "a sync removes the items that wait there for review. Write follow: true to let every" in message


def test_two_sites_can_t_share_a_published_repository(folder: Folder) -> None:
    tree = valid()
    tree["sites"]["other"] = copy.deepcopy(tree["sites"]["mysite"])
    assert "sites.other.repository: is the same as sites.mysite.repository" in folder.refused(tree)


def test_everything_that_is_wrong_is_told_at_once_a_line_each(folder: Folder) -> None:
    tree = valid()
    tree["server"] = {"port": "x"}
    tree["hooks"]["forge"]["secrets"] = ["file:absent"]
    tree["tokens"][1]["sites"] = ["other"]
    tree["sites"]["mysite"]["environments"]["qa"]["branch"] = "live"
    heading, *lines = folder.refused(tree).splitlines()
    assert heading == f"{folder.file}: 4 problems"
    assert [line.split(":")[0].strip() for line in lines] == [
        "hooks.forge.secrets.0",
        "server.port",
        "sites.mysite.environments.qa.branch",
        "tokens.1.sites.0",
    ]


def test_a_reference_stands_for_a_value_of_any_type(folder: Folder) -> None:
    folder.environ |= {"PORT": "9000", "FOLLOW": "false", "ADDRESS": "10.0.0.7"}
    tree = changed("server/port", "env:PORT")
    tree["sites"]["mysite"]["environments"]["staging"]["follow"] = "env:FOLLOW"
    tree["hosts"]["studio"]["address"] = "env:ADDRESS"
    loaded = folder.load(tree)
    assert (loaded.server.port, loaded.hosts["studio"].address) == (9000, "10.0.0.7")
    assert not loaded.sites.environment("mysite", "staging").follow


@pytest.mark.parametrize(
    ("content", "secret"), [("s\n", b"s"), ("s\r\n", b"s"), ("s\n\n", b"s\n"), (" s ", b" s "), ("7", b"7")]
)
def test_one_newline_at_the_end_of_a_file_is_no_part_of_the_secret(
    folder: Folder, content: str, secret: bytes
) -> None:
    folder.put("forge-secret", content)
    assert folder.load(valid()).hooks["forge"].secrets == (secret,)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_or_key_that_others_may_open_is_refused(folder: Folder, mode: int) -> None:
    for name, place in (("forge-secret", "hooks.forge.secrets.0"), ("id_ed25519", "ssh.identity")):
        file = folder.path / name
        file.chmod(mode)
        assert f"{place}: other users can open {file}; run chmod 600 {file}" in folder.refused(valid())
        file.chmod(0o600)


def test_systemd_watches_over_the_modes_of_its_credentials(folder: Folder) -> None:
    key = folder.put("credentials/key", "a key", 0o444)
    loaded = folder.load(changed("ssh/identity", "credential:key"))
    assert loaded.hosts["studio"].identity == str(key)


def test_a_credential_needs_systemd_s_folder(folder: Folder) -> None:
    folder.environ.clear()
    assert "hooks.publisher.secrets.0: needs $CREDENTIALS_DIRECTORY" in folder.refused(valid())


def test_a_file_that_is_no_text_or_too_large_is_no_value(folder: Folder) -> None:
    folder.put("forge-secret", b"\xff\xfe")
    assert "which is not UTF-8" in folder.refused(valid())
    folder.put("forge-secret", "x" * (1 << 16) + "x")
    assert "which is larger than 64 KiB" in folder.refused(valid())


def test_what_is_neither_file_nor_folder_is_not_waited_for(folder: Folder) -> None:
    os.mkfifo(folder.path / "pipe", 0o600)
    assert "which is not a file" in folder.refused(changed("hooks/forge/secrets/0", "file:pipe"))
    assert "is not the path of a readable file" in folder.refused(changed("ssh/identity", "pipe"))


@pytest.mark.parametrize(
    "path", ["/srv/mysite/published/", "/srv//mysite/published", "/srv/./mysite/published/."]
)
def test_live_s_own_repository_is_known_in_every_spelling_of_its_path(folder: Folder, path: str) -> None:
    carriers = [{"host": "studio", "path": path}]
    eu = {"repositories": carriers, "branch": "eu", "follow": True}
    (leg,) = folder.load(changed("sites/mysite/environments/eu", eu)).sites.environment("mysite", "eu").legs
    assert leg.own


WITH_STUDIO = {"studio": {"url": "http://127.0.0.1:8080/studio", "token": "file:studio-token"}}


def unmarked(folder: Folder, tree: dict[str, Any]) -> list[str]:
    """The environments of which a large publish may go unseen."""
    return warned_of(folder, tree, "give studio.token")


def test_each_environment_beside_live_is_warned_of_where_studio_is_not_asked(folder: Folder) -> None:
    eu = {"repositories": [{"host": "studio", "path": "/srv/eu.git"}]}
    both: dict[str, Any] = {"follow": False, "branch": "both"}
    beside = {"host": "studio", "path": "/srv/mysite/published/"}
    both["repositories"] = [{"host": "studio", "path": "/srv/both.git"}, beside]
    tree = changed("sites/mysite/environments/eu", eu)
    tree["sites"]["mysite"]["environments"]["both"] = both
    own = [f"sites.mysite.environments.{name}" for name in ("staging", "qa", "both")]
    assert unmarked(folder, tree) == own
    management = {"studio": {"url": "http://127.0.0.1:8080/studio", "management_token": "file:studio-token"}}
    assert unmarked(folder, tree | management) == own, "a management token tells nothing of publishes"
    assert unmarked(folder, tree | WITH_STUDIO) == []
    tree["hosts"]["studio"]["access"] = "git"
    assert unmarked(folder, tree) == [], "another warning tells what is not seen there"


def test_an_environment_that_is_also_beside_live_is_warned_of_what_a_sync_removes_there(
    folder: Folder,
) -> None:
    beside = {"host": "studio", "path": "/srv/mysite/published/"}
    both = {"repositories": [{"host": "studio", "path": "/srv/both.git"}, beside], "branch": "both"}
    tree = changed("sites/mysite/environments/both", both | {"follow": True})
    told = warned_of(folder, tree, "items that are staged for review")
    assert told == [f"sites.mysite.environments.{name}.follow" for name in ("staging", "both")]
    tree["hosts"]["studio"]["access"] = "git"
    told = warned_of(folder, tree, "git's own services only")
    assert told == [f"sites.mysite.environments.{name}" for name in ("staging", "qa", "both")]


def test_an_environment_on_the_branch_of_studio_s_sandbox_is_warned_of(folder: Folder) -> None:
    tree = changed("sites/mysite/environments/master", {"follow": False})
    assert warned_of(folder, tree, "repo.sandbox.branch") == ["sites.mysite.environments.master"]
    elsewhere = {"repositories": [{"host": "studio", "path": "/srv/eu.git"}]}
    tree = changed("sites/mysite/environments/master", elsewhere)
    assert warned_of(folder, tree, "repo.sandbox.branch") == []


def warned_of(folder: Folder, tree: dict[str, Any], words: str) -> list[str]:
    """The places of the warnings that contain these words."""
    told = [each.split(": ", 1) for each in folder.load(tree).warnings]
    return [place for place, text in told if words in text]


def test_branches_in_different_repositories_do_not_collide(folder: Folder) -> None:
    eu = {"repositories": [{"host": "studio", "path": "/srv/eu.git", "branch": "live/eu"}]}
    folder.load(changed("sites/mysite/environments/eu", eu))


def test_what_is_allowed_but_better_known_is_a_warning(folder: Folder) -> None:
    tree = changed("hooks/forge/secrets/0", FORGE_SECRET)
    tree["server"] = {"host": "0.0.0.0"}
    assert [warning.split(":")[0] for warning in folder.load(tree).warnings] == [
        "server.host",
        "sites.mysite.environments.staging.follow",
        "sites.mysite.environments.staging",
        "sites.mysite.environments.qa",
        "hooks.forge.secrets.0",
    ]
    tree = changed("server/host", "::1") | {"hooks": {}, "tokens": []} | WITH_STUDIO
    tree["sites"]["mysite"]["environments"]["staging"]["follow"] = False
    assert [warning.split(":")[0] for warning in folder.load(tree).warnings] == ["hooks, tokens"]


def warned(folder: Folder, place: str) -> list[str]:
    """The warnings of a configuration about a place."""
    return [line for line in load(folder.file, folder.environ).warnings if line.startswith(f"{place}: ")]


MARKED = "begins with a byte order mark, which an editor has added"
WEAK = {
    "SECRET-of-16-and-more\n\n": "the secret begins or ends with white space",
    " SECRET-of-16-and-more": "the secret begins or ends with white space",
    "SECRET-of-16-and-more\N{NO-BREAK SPACE}": "the secret begins or ends with white space",
    '"SECRET-of-16-and-more"': "the secret is in quotes",
    "'SECRET-of-16-and-more'\n": "the secret is in quotes",
    "\ufeffSECRET-of-16-and-more": f"the secret {MARKED}",
    "\ufeff": f"the secret {MARKED} and has fewer than 16 bytes",
    "forge": "the secret is a name that anybody can see and has fewer than 16 bytes",
    "FORGE\n": "the secret is a name that anybody can see and has fewer than 16 bytes",
    "github": "the secret is a name that anybody can see and has fewer than 16 bytes",
    "Change-Me": "the secret is a well-known one and has fewer than 16 bytes",
    "It's a Secret to Everybody": "the secret is a well-known one",
    "your_webhook_secret": "the secret is a well-known one",
    "aaaaaaaaaaaaaaaaaaaaaaaa": "the secret repeats a few characters",
    "15 bytes, no mor": "",
    "15 bytes, no mo": "the secret has fewer than 16 bytes",
    "äöüäöüä1": "the secret has fewer than 16 bytes",
    " short ": "the secret begins or ends with white space and has fewer than 16 bytes",
    FORGE_SECRET: "",
    f"{FORGE_SECRET}\r\n": "",
    "'": "the secret has fewer than 16 bytes",
    f"\u200b{FORGE_SECRET}": "the secret contains an invisible character",
    f"{FORGE_SECRET}\0": "the secret contains an invisible character",
}


@pytest.mark.parametrize("written", WEAK)
def test_a_weak_secret_is_warned_of_and_goes_on_counting(folder: Folder, written: str) -> None:
    folder.put("forge-secret", written)
    assert folder.load(valid()).hooks["forge"].secrets
    expected = WEAK[written]
    told = f"hooks.forge.secrets.0: {expected}: make another one with openssl rand -hex 32"
    assert warned(folder, "hooks.forge.secrets.0") == ([told] if expected else [])


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("deployer:a long password", "the password has fewer than 16 bytes"),
        ("a-very-long-user-of-a-deployer:x", "the password has fewer than 16 bytes"),
        ("own:own", "the password is a name that anybody can see and has fewer than 16 bytes"),
        ("deployer:deployer", "the password is a name that anybody can see and has fewer than 16 bytes"),
        (f"deployer: {FORGE_SECRET}", "the password begins or ends with white space"),
        (f'deployer:"{FORGE_SECRET}"', "the password is in quotes"),
        (f"\ufeffdeployer:{FORGE_SECRET}", "begins with a byte order mark"),
        (f"deployer:{FORGE_SECRET}:and:more", ""),
    ],
)
def test_of_user_and_password_the_password_counts(folder: Folder, written: str, fault: str) -> None:
    for scheme in ("basic", "azure-devops"):
        selecting = {"site": "mysite"} if scheme == "basic" else {"repositories": {"acme/x": "mysite"}}
        folder.put("own-secret", written)
        tree = changed("hooks/own", {"scheme": scheme, "secrets": ["file:own-secret"], **selecting})
        folder.load(tree)
        (told,) = warned(folder, "hooks.own.secrets.0") or [""]
        assert fault in told
        assert bool(told) == bool(fault)


def test_a_token_that_anybody_would_try_is_warned_of(folder: Folder) -> None:
    for text, weak in (("password", True), ("", True), ("ci", True), (FORGE_SECRET, False)):
        folder.load(changed("tokens/0/sha256", hashlib.sha256(text.encode()).hexdigest()))
        assert bool(warned(folder, "tokens.0.sha256")) == weak


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622])
@pytest.mark.parametrize("name", ["listener.yaml", "known_hosts"])
def test_a_file_that_is_trusted_and_that_others_may_write_to_is_refused(
    folder: Folder, name: str, mode: int
) -> None:
    folder.load(valid())
    file = folder.path / name
    file.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        load(folder.file, folder.environ)
    assert f"other users can write to {file}, which" in caught.value.message
    assert f"run chmod go-w {file}" in caught.value.message
    file.chmod(0o644)
    load(folder.file, folder.environ)


def test_a_folder_in_which_others_could_put_another_file_is_refused(folder: Folder) -> None:
    elsewhere, cache = folder.path / "hosts", folder.path / "cache"
    for each in (elsewhere, cache):
        each.mkdir()
    folder.put("hosts/known_hosts", "studio.example.com ssh-ed25519 AAAA\n", 0o644)
    tree = changed("ssh/known_hosts", "hosts/known_hosts") | {"sync": {"cache": str(cache)}}
    folder.load(tree)
    for each, place in (
        (folder.path, "(the whole file)"),
        (elsewhere, "ssh.known_hosts"),
        (cache, "sync.cache"),
    ):
        for mode in (0o775, 0o707):
            each.chmod(mode)
            told = folder.refused(tree)
            assert f"{place}: other users can write to {each}, which" in told
            assert f"run chmod go-w {each}" in told
        each.chmod(0o755)
    folder.load(tree)
    folder.path.chmod(0o1777)
    elsewhere.chmod(0o1777)
    folder.load(tree)


def test_two_names_of_a_forge_that_differ_in_case_only_are_refused(folder: Folder) -> None:
    for names in (("acme/x", "Acme/X"), ("acme/{site}", "ACME/{site}")):
        sites = ["{site}" if "{site}" in name else "mysite" for name in names]
        told = folder.refused(changed("hooks/forge/repositories", dict(zip(names, sites, strict=True))))
        assert f"repositories.{json.dumps(names[1]) if '{' in names[1] else names[1]}: differs from" in told
    own = {"scheme": "hmac", "secrets": [FORGE_SECRET], "hmac": {"header": "X-S"}}
    both = {"payload": {"repository": "r"}, "repositories": {"acme/x": "mysite", "Acme/X": "mysite"}}
    folder.load(changed("hooks/own", {**own, **both}))


@pytest.mark.parametrize("name", ["acme/mysite.git", "acme/mysite.GIT", "acme/{site}.git"])
def test_a_name_that_ends_with_git_is_refused(folder: Folder, name: str) -> None:
    site = "{site}" if "{site}" in name else "mysite"
    told = folder.refused(changed("hooks/forge/repositories", {name: site}))
    assert "ends with .git, which isn't part of the name; write owner/name alone" in told


def test_what_was_understood_is_told_without_secrets(folder: Folder) -> None:
    loaded = folder.load(changed("hooks/forge/secrets", ["file:forge-secret", ANOTHER_SECRET]))
    lines = describe(loaded)
    assert "environment mysite/qa: branch quality, policy reset, synced only by a call that names it" in lines
    assert "hook forge: POST /hooks/forge, scheme github, 2 secrets, acme/my.site is mysite" in lines
    assert "token editors: member of mysite, expires 2030-01-31T00:00:00Z" in lines
    assert lines[-1].startswith("warning: hooks.forge.secrets.1: the secret stands in clear")
    values = to_dict(loaded)
    assert values["hooks"]["forge"]["secrets"] == 2
    assert values["tokens"][1] == {
        "name": "editors", "role": "member", "sites": ["mysite"], "expires": "2030-01-31T00:00:00Z",
    }  # fmt: skip
    everything = f"{lines}{json.dumps(values)}{loaded!r}"
    for secret in (FORGE_SECRET, ANOTHER_SECRET, STANDARD_SECRET):
        assert secret not in everything


HOOKS: dict[str, dict[str, Any]] = {
    "gitlab": {
        "scheme": "gitlab",
        "secrets": ["gl-token", STANDARD_SECRET],
        "repositories": {"acme/web/{site}": "{site}", "My Team/my site": "mysite"},
        "branch": "main",
        "environments": ["staging"],
    },
    "stripe": {
        "scheme": "hmac",
        "secrets": ["a secret"],
        "sites": ["mysite"],
        "events": ["site.published"],
        "hmac": {
            "header": "Stripe-Signature",
            "signature_key": "v1",
            "timestamp_key": "t",
            "tolerance": "1m",
        },
        "payload": {"site": "data.site", "id": "id"},
    },
    "deployer": {"scheme": "basic", "secrets": ["deployer:a long password"], "site": "mysite"},
    "last": {"scheme": "path", "secrets": ["0123456789abcdef"], "site": "mysite"},
}


def test_every_setting_of_a_hook_becomes_the_core_s_own_values(folder: Folder) -> None:
    hooks = folder.load(changed("hooks", HOOKS)).hooks
    gitlab, stripe, deployer = hooks["gitlab"], hooks["stripe"], hooks["deployer"]
    assert (gitlab.branch, gitlab.environments, gitlab.body_limit) == (
        "main",
        frozenset({"staging"}),
        25 << 20,
    )
    assert gitlab.mirrored("acme/web/mysite") == "mysite"
    assert gitlab.mirrored("My Team/my site") == "mysite"
    assert stripe.form == Form(
        "Stripe-Signature",
        signature_key="v1",
        timestamp_key="t",
        signed="{timestamp}.{body}",
        tolerance=60,
    )
    assert (stripe.payload, stripe.events) == (
        Payload(site="data.site", id="id"),
        frozenset({"site.published"}),
    )
    assert (deployer.form, deployer.payload, deployer.body_limit) == (None, Payload(), 1 << 20)


def test_every_setting_of_a_hook_is_told_without_its_secret(folder: Folder) -> None:
    loaded = folder.load(changed("hooks", HOOKS))
    lines, values = describe(loaded), to_dict(loaded)["hooks"]
    assert (
        "hook gitlab: POST /hooks/gitlab, scheme gitlab, 2 secrets, acme/web/{site} is {site}, "
        "My Team/my site is mysite, branch main, environment staging only"
    ) in lines
    assert "hook last: POST /hooks/last/SECRET, scheme path, 1 secret, mysite" in lines
    assert (values["gitlab"]["hmac"], values["gitlab"]["payload"]) == (None, None)
    assert values["stripe"]["hmac"]["timestamp_key"] == "t"
    assert values["stripe"]["payload"]["site"] == "data.site"
    everything = f"{lines}{json.dumps(values)}{loaded!r}"
    for hook in HOOKS.values():
        for secret in hook["secrets"]:
            assert secret not in everything
    assert b"a long password" in loaded.secrets
    assert b"ZGVwbG95ZXI6YSBsb25nIHBhc3N3b3Jk" in loaded.secrets


def test_without_a_timestamp_the_body_alone_is_signed(folder: Folder) -> None:
    form = folder.load(changed("hooks/own", OWN)).hooks["own"].form
    assert form == Form("X-Sign", signed="{body}")


def test_a_secret_in_clear_in_a_file_that_everybody_may_read_is_refused(folder: Folder) -> None:
    tree = changed("hooks/forge/secrets/0", "in clear")
    folder.load(tree)
    folder.file.chmod(0o644)
    with pytest.raises(ConfigurationError) as caught:
        load(folder.file, folder.environ)
    told = caught.value.message
    assert "hooks.forge.secrets.0: the secret stands in clear in a file that every user can read" in told
    assert f"run chmod 600 {folder.file}" in told
    folder.file.chmod(0o640)
    load(folder.file, folder.environ)


@pytest.mark.parametrize(
    ("server", "warned"),
    [
        ({"host": "0.0.0.0"}, True),
        ({"host": "0.0.0.0", "trusted_proxies": ["10.0.0.1"]}, False),
        ({"host": "127.0.0.1"}, False),
    ],
)
def test_an_open_address_without_tls_and_proxy_is_a_warning(
    folder: Folder, server: dict[str, Any], warned: bool
) -> None:
    told = [line for line in folder.load(changed("server", server)).warnings if "travel" in line]
    assert bool(told) == warned


def circle(*names: str) -> dict[str, Any]:
    """Hosts of which each is reached through the next one."""
    return {name: {"address": name, "user": "u", "via": via} for name, via in itertools.pairwise(names)}


def test_every_host_of_a_circle_is_told_and_none_that_leads_into_it(folder: Folder) -> None:
    tree = valid()
    tree["hosts"] |= circle("a", "b", "c", "a") | circle("in", "out", "a")
    lines = folder.refused(tree).splitlines()[1:]
    text = "via: leads back to the host itself; remove one via of the circle"
    assert [line.strip() for line in lines] == [f"hosts.{name}.{text}" for name in "abc"]


def test_many_problems_are_counted_and_the_first_ones_listed(folder: Folder) -> None:
    tree = valid()
    site = tree["sites"]["mysite"] | {"live": "a..b"}
    tree["sites"] |= {f"site-{n}": copy.deepcopy(site) for n in range(400)}
    heading, *lines, rest = folder.refused(tree).splitlines()
    assert heading.endswith(": 400 problems")
    assert (len(lines), rest) == (50, "  and 350 more problems")


def test_a_hint_lists_some_of_many_names(folder: Folder) -> None:
    tree = valid()
    tree["hosts"] |= {f"host-{n}": {"address": "a", "user": "u"} for n in range(1000)}
    tree["sites"]["mysite"]["repository"]["host"] = "host-1000"
    told = folder.refused(tree)
    assert "did you mean host-100? Known: host-0, host-1, " in told
    assert told.endswith(" and 981 more")


def test_a_rule_is_told_beside_a_fault_of_the_shape_elsewhere(folder: Folder) -> None:
    """A section with the wrong shape can be named, and does not hide what is wrong in the others."""
    tree = changed("hosts/studio/port", "x")
    tree["sites"]["other"] = copy.deepcopy(tree["sites"]["mysite"]) | {"live": 7}
    tree["tokens"][1]["sites"] = ["other", "nowhere"]
    tree["hooks"]["forge"]["repositories"] = {}
    lines = [line.split(":")[0].strip() for line in folder.refused(tree).splitlines()[1:]]
    assert lines == ["hooks.forge", "hosts.studio.port", "sites.other.live", "tokens.1.sites.1"]


def test_many_risky_environments_give_few_warnings(folder: Folder) -> None:
    tree = valid()
    site = tree["sites"]["mysite"]
    for n in range(100):
        repository = {"host": "studio", "path": f"/srv/{n}"}
        tree["sites"][f"site-{n}"] = {**copy.deepcopy(site), "repository": repository}
    warnings = folder.load(tree).warnings
    assert len(warnings) == 2 * 11
    assert any(line.startswith("sites, and 91 more environments: each publish") for line in warnings)
