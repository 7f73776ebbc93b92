"""The store's URL: what it may be, and that its password is never shown."""

import json
from pathlib import Path

import pytest

from listener.config.describe import describe, to_dict
from listener.config.names import public_url, store_fault, store_secrets, unverified
from tests.unit.test_config import Folder, valid

SQLITE = ["sqlite:///x", "sqlite:///var/lib/x.db", "sqlite:////var/lib/x.db"]
POSTGRES = [
    "postgresql://db/listener",
    "postgres://listener@db:5433/listener",
    "postgresql://listener:p%40ss%2F@db.example.com/listener?sslmode=verify-full",
    "postgresql://listener@[::1]:5432/listener",
    "postgresql://listener@one:5432,two:5432/listener?target_session_attrs=read-write",
    "postgresql:///listener",
    "postgresql://listener@/listener?host=/run/postgresql&port=5432",
]


@pytest.mark.parametrize("url", SQLITE + POSTGRES)
def test_a_store_is_the_url_of_a_file_or_of_a_database(url: str) -> None:
    assert store_fault(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///",
        "sqlite:///x/",
        "sqlite:///x?mode=memory",
        "sqlite:x",
        "x",
        "",
        "postgresql+asyncpg://d/x",
    ],
)
def test_a_store_is_nothing_else(url: str) -> None:
    assert store_fault(url).startswith("is not the URL of a store; write sqlite:///")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:",
        "postgresql://db",
        "postgresql://db/",
        "postgresql://u:hidd/en@db/x",
        "postgresql://u:hidd@en@db/x",
        "postgresql://db:port/x",
        "postgresql://db/x/y",
        "postgresql://db/x#y",
        "postgresql://d b/x",
    ],
)
def test_a_url_of_no_database_is_refused_and_not_repeated(url: str) -> None:
    fault = store_fault(url)
    assert fault.startswith("is not the URL of a database; write postgresql://USER:PASSWORD@HOST/DATABASE")
    assert "hidd" not in fault


def test_a_password_stands_before_the_host_only() -> None:
    assert "among its options" in store_fault("postgresql://db/x?password=hidden")


def test_a_password_is_left_out_of_what_is_told() -> None:
    url = "postgresql://listener:p%40ss@db:5433/listener?sslmode=require"
    assert public_url(url) == "postgresql://listener@db:5433/listener"
    assert list(store_secrets(url)) == ["p@ss", "p%40ss"]
    assert public_url(SQLITE[1]) == SQLITE[1]
    assert list(store_secrets(SQLITE[1])) == list(store_secrets(POSTGRES[0])) == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (SQLITE[0], False),
        ("postgresql:///x", False),
        ("postgresql:///x?host=/run/postgresql", False),
        ("postgresql://u:p@localhost:5432/x", False),
        ("postgresql://[::1]:5432/x", False),
        ("postgresql://u:p@db/x", True),
        ("postgresql://[2001:db8::1]/x", True),
        ("postgresql:///x?host=db", True),
        ("postgresql://localhost,db/x", True),
        ("postgresql://db/x?sslmode=require", True),
        ("postgresql://db/x?sslmode=verify-full", False),
    ],
)
def test_a_server_elsewhere_is_to_be_verified(url: str, expected: bool) -> None:
    assert unverified(url) is expected


def test_nothing_that_is_told_of_the_settings_shows_the_password(tmp_path: Path) -> None:
    loaded = Folder(tmp_path).load(valid() | {"store": "postgresql://listener:hid%40den@db/listener"})
    lines = describe(loaded)
    assert "store: postgresql://listener@db/listener" in lines
    assert len([line for line in lines if line.startswith("warning: store: ")]) == 2
    assert "hid" not in f"{lines}{json.dumps(to_dict(loaded))}{loaded!r}"
    assert {b"hid@den", b"hid%40den"} <= loaded.secrets


def test_a_store_by_reference_to_a_server_that_is_verified_gives_no_warning(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put("store-url", "postgresql://listener:hidden@db/listener?sslmode=verify-full\n")
    loaded = folder.load(valid() | {"store": "file:store-url"})
    assert loaded.store_name == "postgresql://listener@db/listener"
    assert not any(warning.startswith("store") for warning in loaded.warnings)
