"""Batches as they go out: whole, or each answer as soon as it is there, in the framing of either version's stream link.

The head of a stream waits for the first answer: by then the caller is known and its limits counted, and there was nothing to say
before. What keeps a quiet stream open is whitespace, which both clients skip.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count

from coordinator.doors import streams
from coordinator.doors.trpc.calls import Answer, arriving

Framing = Callable[[list[asyncio.Task[Answer]]], AsyncIterator[bytes]]


def whole(answers: list[Answer]) -> bytes:
    return b"[" + b",".join(answer.body for answer in answers) + b"]"


async def first(tasks: list[asyncio.Task[Answer]]) -> None:
    """Returns when there is something to say."""
    await asyncio.wait(tasks, timeout=streams.KEEPALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)


async def json_lines(tasks: list[asyncio.Task[Answer]]) -> AsyncIterator[bytes]:
    """Version 11: a head that promises a chunk for each call, `[[0],[null,0,chunk]]`, then the chunks, `[chunk,0,[[answer]]]`; the
    zeros are a placeholder and the codes of a promise and of its being kept."""
    head = (b'"%d":[[0],[null,0,%d]]' % (index, index) for index in range(len(tasks)))
    yield b"{" + b",".join(head) + b"}\n"
    async for arrived in arriving(tasks):
        yield b" " if arrived is None else b"[%d,0,[[%b]]]\n" % (arrived[0], arrived[1].body)


async def object_lines(tasks: list[asyncio.Task[Answer]]) -> AsyncIterator[bytes]:
    """Version 10: one object, a line for each call, in the order of arrival."""
    opening = (b"{" if number == 0 else b"," for number in count())
    async for arrived in arriving(tasks):
        yield b"\n" if arrived is None else b'%b"%d":%b\n' % (next(opening), arrived[0], arrived[1].body)
    yield b"}"


def object_lines_of(answers: list[Answer]) -> bytes:
    return b"{" + b",".join(b'"%d":%b\n' % (index, answer.body) for index, answer in enumerate(answers)) + b"}"
