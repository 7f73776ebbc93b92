"""Where a listener answers, read from its configuration without the rest."""

import subprocess
import sys
from pathlib import Path

import pytest

from listener.config.address import Address, read_server
from listener.errors import ConfigurationError

REST = "sites: {mysite: {}, mysite: [a, b\n"
"""What can't be read: it must not be looked at."""


def written(folder: Path, text: str) -> Path:
    file = folder / "listener.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("server: {host: 0.0.0.0, port: 9000}", Address("0.0.0.0", 9000)),
        ("server: {}", Address("127.0.0.1", 8787)),
        ("store: x", Address("127.0.0.1", 8787)),
        ("server: {port: env:PORT}", Address("127.0.0.1", 9001)),
        ("server: {tls: {certificate: /tls/c.pem, key: file:absent}}", Address(certificate="/tls/c.pem")),
        ("server: {tls: null, wait: nonsense}", Address()),
    ],
)
def test_the_address_is_that_of_the_section_server(tmp_path: Path, text: str, address: Address) -> None:
    assert read_server(written(tmp_path, text), {"PORT": "9001"}) == address


def test_the_path_of_the_certificate_is_relative_to_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "server: {tls: {certificate: c.pem, key: k.pem}}")
    assert read_server(file, {}).certificate == str(tmp_path / "c.pem")


def test_what_stands_behind_the_section_is_not_read(tmp_path: Path) -> None:
    file = written(tmp_path, f"log: {{level: info}}\nserver: {{port: 9000}}\n{REST}")
    assert read_server(file, {}).port == 9000
    with pytest.raises(ConfigurationError, match="the key mysite appears twice"):
        read_server(written(tmp_path, f"{REST}server: {{port: 9000}}\n"), {})


@pytest.mark.parametrize(
    "section",
    [
        "text",
        "{port: '8787'}",
        "{port: true}",
        "{port: 65536}",
        "{port: -1}",
        "{port: env:ABSENT}",
        "{host: 7}",
        "{host: me@studio}",
        "{host: 'a/b'}",
        "{tls: {key: k}}",
        "{tls: yes}",
    ],
)
def test_a_section_that_can_t_be_used_is_an_error_with_a_remedy(tmp_path: Path, section: str) -> None:
    with pytest.raises(ConfigurationError, match="the section server can't be used") as refused:
        read_server(written(tmp_path, f"server: {section}\n"), {})
    assert "check-config" in refused.value.remedy


def test_neither_pydantic_nor_the_models_are_imported() -> None:
    code = "import sys, listener.config.address; print(*(name for name in sys.modules if 'pydantic' in name))"
    assert not subprocess.check_output([sys.executable, "-c", code], text=True).split()
