"""When a replica sends, and what it merges."""

from __future__ import annotations

import asyncio

from node.engine.outbox import Beat, Outbox
from sovereign.engine.v1.engine_pb2 import Event


async def test_one_turn_of_the_loop_is_one_message() -> None:
    outbox = Outbox(gap_s=3600)
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    for number in range(16):
        outbox.put(Event(id=number, text="a", tokens=1))
    assert [event.id for event in await taking] == list(range(16))


async def test_within_the_gap_news_is_merged_and_waits() -> None:
    outbox = Outbox(gap_s=3600)
    outbox.put(Event(id=1, text="a", tokens=1))
    await outbox.take()
    taking = asyncio.create_task(outbox.take())
    for _ in range(3):
        outbox.put(Event(id=1, text="b", tokens=1))
        await asyncio.sleep(0)
    assert not taking.done()
    outbox.put(Event(id=1, text="c", tokens=1, finish="stop", prompt_tokens=9), urgent=True)
    outbox.put(Event(id=2, text="d", tokens=1))
    first, second = await taking
    assert (first.text, first.tokens, first.finish, first.prompt_tokens) == ("bbbc", 4, "stop", 9)
    assert (second.id, second.text) == (2, "d")


async def test_after_the_gap_it_is_sent_by_itself() -> None:
    outbox = Outbox(gap_s=0.01)
    outbox.put(Event(id=1, tokens=1))
    await outbox.take()
    outbox.put(Event(id=1, tokens=2))
    async with asyncio.timeout(5):
        assert [event.tokens for event in await outbox.take()] == [2]


async def test_a_reader_that_stops_costs_one_event_per_generation() -> None:
    outbox = Outbox(gap_s=0)
    for _ in range(1000):
        for number in range(4):
            outbox.put(Event(id=number, text="x", tokens=1))
    events = await outbox.take()
    assert [(event.id, event.tokens) for event in events] == [(number, 1000) for number in range(4)]


async def test_what_was_cancelled_is_not_sent() -> None:
    outbox = Outbox(gap_s=0)
    outbox.put(Event(id=1, tokens=1))
    outbox.put(Event(id=2, tokens=1))
    outbox.forget(1)
    assert [event.id for event in await outbox.take()] == [2]


async def test_all_share_a_beat_and_one_who_leaves_disturbs_nobody() -> None:
    beat = Beat(lambda: 0.01, lambda: False, look_s=0.001)
    waiting = [asyncio.create_task(beat.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting[1:])
        await beat.wait()
    assert waiting[0].cancelled()


async def test_an_end_strikes_the_beat_early() -> None:
    ended = False
    beat = Beat(lambda: 3600, lambda: ended, look_s=0.001)
    waiting = asyncio.create_task(beat.wait())
    await asyncio.sleep(0.005)
    assert not waiting.done()
    ended = True
    async with asyncio.timeout(5):
        await waiting
