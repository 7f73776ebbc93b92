"""Environments for tests, made and changed leg by leg."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from listener.outcomes import LegOutcome
from listener.progress import Progress
from listener.sites import Environment, Host, Policy, RepositoryAddress
from listener.ssh import HostPool


def environment_of(*carriers: RepositoryAddress, source: RepositoryAddress | None = None) -> Environment:
    """The environment `staging` of `mysite`, carried by these; live lies in the first, or in `source`."""
    legs = [(carrier, "staging") for carrier in carriers]
    return Environment.of(
        "mysite", "staging", source or carriers[0], "live", Policy.FORWARD, legs, follow=True
    )


def changed(environment: Environment, **facts: Any) -> Environment:
    """The environment with these facts on every leg; a new repository is live's own too."""
    if "repository" in facts:
        facts["source"] = facts["repository"]
    legs = tuple(replace(leg, **facts) for leg in environment.legs)
    return replace(environment, legs=legs, policy=legs[0].policy)


def only(progress: Progress) -> LegOutcome:
    """What was done to the only leg."""
    (leg,) = progress.legs.values()
    return leg


def pool_of(
    hosts: Iterable[Host],
    cache: Path,
    *,
    step_timeout: float = 20,
    connect_timeout: float = 10,
    transfer_timeout: float = 60,
) -> HostPool:
    """The pool of these hosts."""
    return HostPool(
        {host.name: host for host in hosts},
        step_timeout=step_timeout,
        connect_timeout=connect_timeout,
        transfer_timeout=transfer_timeout,
        cache=cache,
    )


async def unkept() -> None:
    """Keep nothing: nobody is killed here."""
