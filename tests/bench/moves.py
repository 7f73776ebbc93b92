"""Rows about one sync: from a webhook to a moved branch, from a POST to its answer, beside Studio at work."""

import asyncio
import time

from tests.bench.figures import milliseconds
from tests.bench.moved import Watched
from tests.bench.sides import ELSEWHERE, PLANS, Side, all_sides, place, product
from tests.bench.stage import Stage, publish
from tests.publisher import StudioPublisher

ROUND_TRIPS = (0.0, 0.02)
"""Seconds."""


async def moved(side: Side, plan: str) -> float:
    """Seconds from a webhook to the moved branch, after a publish."""
    at = side.places[plan]
    await asyncio.to_thread(publish, at.source)
    at.set_back()
    with Watched(at.metadata) as watched:
        began = time.perf_counter()
        await side.deliver(plan)
        try:
            took = await watched.at() - began
        except RuntimeError as error:
            raise RuntimeError(f"{side.name}: {plan}: {error}") from error
    await side.settled()
    return took


async def answered(side: Side, plan: str) -> float:
    """Seconds from a call to its answer, after a publish."""
    await asyncio.to_thread(publish, side.places[plan].source)
    side.places[plan].set_back()
    began = time.perf_counter()
    await side.call(plan)
    return time.perf_counter() - began


async def move(stage: Stage) -> None:
    """From a webhook to the moved branch by each plan, and from a POST to its answer, by round-trip time."""
    plans = (*PLANS, *ELSEWHERE)
    for round_trip in ROUND_TRIPS[1:] if stage.short else ROUND_TRIPS:
        async with all_sides(stage, plans, round_trip) as sides:
            for plan in plans:
                at = f"{plan}, {round_trip * 1000:.0f} ms"
                times = stage.times(100 if plan == PLANS[0] else 25, 1)
                for name, way in (("webhook", moved), ("call", answered)):
                    if name == "call" and plan != PLANS[0]:
                        continue
                    found: dict[str, list[float]] = {side.name: [] for side in sides}
                    for number in range(times + 1):
                        for side in sides:
                            took = await way(side, plan)
                            # The first time connects, loads and imports.
                            found[side.name] += [took] if number else []
                    for side in sides:
                        stage.figures.add(
                            "move", f"{name}: {at}", side.name, "ms", milliseconds(found[side.name])
                        )


async def quiet(stage: Stage) -> None:
    """What users feel: Studio publishes, and calls; `quiet` is what it is unless it is set."""
    plan = PLANS[0]
    found: dict[str, list[float]] = {}
    for _ in range(stage.times(2, 1)):
        for tree in stage.trees:
            places = {plan: place(stage, plan)}
            store = next(iter(stage.stores(both=False).items()))
            sync = {"quiet": 0.2} if stage.short else {}
            async with product(
                stage, tree, places, stage.sshd.port, store, sync={"interval": 0, **sync}
            ) as side:
                studio = StudioPublisher(places[plan].source, staging_enabled=False)
                for number in range(stage.times(6, 1)):
                    change = {"site/website/news.xml": f"<page>{number}</page>\n"}
                    await asyncio.to_thread(studio.publish, "live", change)
                    with Watched(places[plan].metadata) as watched:
                        began = time.perf_counter()
                        await side.deliver(plan)
                        found.setdefault(side.name, []).append(await watched.at() - began)
                    await side.settled()
    for name, took in found.items():
        stage.figures.add("quiet", "webhook after a publish, default quiet", name, "ms", milliseconds(took))
