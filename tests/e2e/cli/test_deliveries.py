"""`deliveries`, `hook list`, `token list`, and what `hook send` tells of a refusal."""

from pathlib import Path

from tests.e2e.cli.shell import Shell, varied
from tests.listening import MEMBER, Client, Daemon


async def test_deliveries_are_listed_and_shown_and_redelivered(
    running: Daemon, shell: Shell, api: Client
) -> None:
    _, ignored, _ = await api.deliver("d-0", b'{"zen": "x"}', event="ping")
    _, answer, _ = await api.deliver("d-1")
    await api.call("POST", "/hooks/forge", token=None)
    listed = await shell("deliveries", "list")
    refused, accepted, ping = (line.split(maxsplit=6) for line in listed.out.splitlines()[1:])
    assert (accepted[0], accepted[5], accepted[6]) == (
        answer["delivery"],
        "accepted",
        f"run {answer['runs'][0]}",
    )
    assert (ping[0], ping[6]) == (ignored["delivery"], "the event ping is not a publish")
    assert refused[3:] == ["forge", "127.0.0.1", "refused", "X-Hub-Signature-256 is missing"]
    page = await shell("deliveries", "list", "--limit", "1", "--hook", "forge")
    assert page.err == f"older ones: --before {refused[0]}\n"
    rest = await shell("deliveries", "list", "--outcome", "ignored", "--before", refused[0])
    assert ([line.split()[0] for line in rest.out.splitlines()[1:]], rest.err) == ([ignored["delivery"]], "")
    shown = (await shell("deliveries", "show", answer["delivery"])).out.splitlines()
    assert "credential   hook forge, secret 1" in shown
    assert "sender's id  d-1" in shown
    assert "header       x-github-event: push" in shown
    done = await shell("deliveries", "redeliver", answer["delivery"], "--json")
    assert (done.status, done.document["delivery"]) == (0, answer["delivery"])
    await api.ended(done.document["runs"][0])
    shown = (await shell("deliveries", "show", answer["delivery"])).out.splitlines()
    assert any(line.startswith("redelivered") and "by root from 127.0.0.1" in line for line in shown)
    none = await shell("deliveries", "redeliver", ignored["delivery"])
    assert (none.status, none.out) == (1, "")
    assert "The delivery selects nothing: the event ping is not a publish." in none.err
    missing = await shell("deliveries", "show", "nosuch")
    assert (missing.status, missing.err) == (1, "error: No such delivery.\n")


async def test_a_refused_call_is_listed_with_what_was_asked(
    running: Daemon, shell: Shell, config: Path
) -> None:
    assert (await Shell(config, MEMBER)("deliveries", "list")).status == 1
    listed = await shell("deliveries", "list")
    assert listed.out.splitlines()[1].endswith("GET /api/v1/deliveries: Only an admin may see this.")


async def test_the_use_of_secrets_and_tokens_is_listed(running: Daemon, shell: Shell, api: Client) -> None:
    await api.deliver("d-1")
    hooks = await shell("hook", "list")
    (row,) = [line.split() for line in hooks.out.splitlines()[1:]]
    assert row[:5] == ["forge", "github", "secret", "1", "1"]
    tokens = await shell("token", "list")
    rows = {line.split()[0]: line.split() for line in tokens.out.splitlines()[1:]}
    assert rows["root"][:5] == ["root", "admin", "-", "-", "2"]
    assert rows["editors"] == ["editors", "member", "mysite", "-", "0", "-"]
    assert (await shell("token", "list", "--json")).document["tokens"][0]["name"] == "root"
    assert (await shell("hook", "list", "--json")).document["hooks"][0]["secrets"][0]["count"] == 1


async def test_a_refused_test_delivery_tells_an_admin_why_and_others_how_to_learn_it(
    running: Daemon, config: Path
) -> None:
    other = varied(config, "hooks", "forge", "secrets", value=["an old secret of the forge's"])
    admin = await Shell(other)("hook", "send", "forge")
    assert admin.status == 1
    reason = "the signature is not made with a secret of this hook"
    assert admin.out.splitlines()[1] == f"refused: {reason}"
    document = (await Shell(other)("hook", "send", "forge", "--json")).document
    assert document["refusal"]["reason"] == reason
    for token in (None, MEMBER):
        done = await Shell(other, token)("hook", "send", "forge")
        assert (done.status, len(done.out.splitlines())) == (1, 1)
        assert done.err.startswith("to see why, use an admin's token: sync-staging deliveries show ")
