"""Backups are kept for as long as is configured, and then deleted."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from listener.access import Session
from listener.directory import Directory
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from listener.runs import first_id, new_id
from listener.sites import Access, Policy, RepositoryAddress, Site, Sites
from listener.store import Store
from listener.upkeep import Upkeep
from tests.contract.test_repository import host_of
from tests.legs import changed, environment_of, pool_of

DAY = 86400.0


@pytest.mark.parametrize("access", Access)
async def test_a_backup_is_deleted_when_its_time_is_over(
    store: Store, sshd_of: Mapping[Access, Sshd], published: Published, tmp_path: Path, access: Access
) -> None:
    host = replace(host_of(sshd_of[access]), access=access)
    home = RepositoryAddress("studio", str(published.path))
    reset = changed(environment_of(home), policy=Policy.RESET)
    now = time.time()
    young, old = (
        f"refs/sync-staging/backup/staging/{new_id(now - days * DAY)}-0123456789ab" for days in (29, 31)
    )
    others = f"refs/sync-staging/backup/qa/{new_id(now - 31 * DAY)}-0123456789ab"
    for ref in (young, old, others):
        published.git("update-ref", ref, published.commit("staging"))
    pool = pool_of([host], tmp_path / "cache")
    sites = Sites.of([Site("mysite", home, "live", {"staging": reset})])
    log = structlog.get_logger()
    upkeep = Upkeep(
        Directory(sites, pool, time.time, log),
        pool,
        store,
        store,
        keep_backups=30 * DAY,
        age=90 * DAY,
        runs=1000,
        deliveries=1000,
        clock=time.time,
        log=log,
    )
    assert await upkeep.expire() == 1
    kept = published.git("for-each-ref", "--format=%(refname)", "refs/sync-staging").split()
    assert sorted(kept) == sorted([young, others])
    assert await upkeep.expire() == 0
    await pool.close()


async def test_sessions_that_have_expired_are_forgotten(store: Store, tmp_path: Path) -> None:
    now = time.time()
    for key, expires in (("old", now - 1), ("young", now + 60)):
        await store.begin_session(Session(key, "editors", "hash", expires))
    pool, log = pool_of([], tmp_path / "cache"), structlog.get_logger()
    upkeep = Upkeep(
        Directory(Sites.of([]), pool, time.time, log),
        pool,
        store,
        store,
        keep_backups=30 * DAY,
        age=90 * DAY,
        runs=1000,
        deliveries=1000,
        clock=time.time,
        log=log,
    )
    await upkeep.prune()
    assert await store.session("old") is None
    assert await store.session("young") is not None
    await pool.close()


def test_ids_of_earlier_times_sort_before_the_first_of_a_later() -> None:
    for at in (0.001, 1_700_000_000.0, 1_795_000_000.5):
        assert new_id(at - 0.001) < first_id(at) <= new_id(at)
