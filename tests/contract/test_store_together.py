"""Acceptances that wait for the writer together are one write, and each gets its own answer."""

import asyncio
from dataclasses import replace

import pytest

from listener.errors import ListenerError
from listener.queue import Acceptance, DeliveryRecord, Hold
from listener.runs import Origin, State, Trigger, new_id
from listener.store import Store

NOW = 1_700_000_000.0


def hook(environment: str = "staging", origin: Origin = Origin.HOOK) -> Trigger:
    return Trigger(new_id(NOW), "site", environment, origin, "forge", NOW)


def record(key: str | None, digest: str = "") -> DeliveryRecord:
    return DeliveryRecord(new_id(NOW), "forge", key, NOW, 2, digest, {}, {})


async def test_deliveries_for_one_environment_that_come_together_get_one_run(store: Store) -> None:
    triggers = [hook() for _ in range(70)]
    answers = await asyncio.gather(*(store.accept([each], record(each.id), NOW) for each in triggers))
    (run,) = {answer.runs for answer in answers}
    assert [answer.triggers for answer in answers] == [(each.id,) for each in triggers]
    assert {each.id for each in await store.triggers(run[0])} == {each.id for each in triggers}


async def test_the_same_delivery_twice_at_once_is_taken_once(store: Store) -> None:
    answers = await asyncio.gather(*(store.accept([hook()], record("same"), NOW) for _ in range(3)))
    assert [answer.repeated for answer in answers] == [False, True, True]
    assert len({(answer.delivery, answer.runs, answer.triggers) for answer in answers}) == 1


async def test_each_of_several_that_come_together_gets_its_own_answer(store: Store) -> None:
    await store.hold(Hold("site", "frozen", "test", "ada", NOW))
    held, explicit, free, ping = await asyncio.gather(
        store.accept([hook("frozen")], record("1"), NOW),
        store.accept([hook("frozen", Origin.API)], None, NOW),
        store.accept([hook("frozen"), hook("qa")], record("2"), NOW),
        store.accept([hook()], replace(record("3"), ignored="a ping"), NOW),
    )
    assert not held.runs
    assert "on hold" in held.ignored
    assert (await store.run(explicit.runs[0])).state is State.FAILED
    assert [(await store.run(each)).environment for each in free.runs] == ["qa"]
    assert (ping.runs, ping.ignored) == ((), "a ping")


async def test_one_that_fails_does_not_take_the_others_down(store: Store) -> None:
    before = hook("qa")
    await store.accept([before], None, NOW)
    good, bad, other = hook(), replace(hook(), id=before.id), hook()
    answers = await asyncio.gather(
        *(store.accept([each], record(new_id(NOW)), NOW) for each in (good, bad, other)),
        return_exceptions=True,
    )
    assert isinstance(answers[1], Exception)
    assert not isinstance(answers[1], ListenerError)
    for answer, trigger in ((answers[0], good), (answers[2], other)):
        assert isinstance(answer, Acceptance)
        assert answer.triggers == (trigger.id,)
        assert (await store.serving(trigger.id)).state is State.QUEUED


async def test_callers_who_are_gone_do_not_keep_the_others_from_their_answers(store: Store) -> None:
    gone, *waiting = (asyncio.create_task(store.accept([hook()], record(new_id(NOW)), NOW)) for _ in range(3))
    await asyncio.sleep(0)
    gone.cancel()
    for answer in await asyncio.gather(*waiting):
        assert answer.runs
    with pytest.raises(asyncio.CancelledError):
        await gone
    (run,) = {answer.runs[0] for answer in await asyncio.gather(*waiting)}
    assert len(await store.triggers(run)) == 3
