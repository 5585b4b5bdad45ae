import asyncio

import pytest

from actors.runtime.envelope import NO_CONTEXT, STOP, Crash, Envelope
from actors.runtime.mailbox import Mailbox, MailboxClosed


def envelope(message: object = None) -> Envelope:
    """Return an envelope with a message of any kind."""
    return Envelope(message, NO_CONTEXT)


async def test_it_is_a_queue_of_asyncio() -> None:
    """Messages come out in order, and its errors are those of any queue."""
    mailbox = Mailbox(2, "wait")
    assert isinstance(mailbox, asyncio.Queue)
    assert (mailbox.maxsize, mailbox.empty()) == (2, True)
    with pytest.raises(asyncio.QueueEmpty):
        mailbox.get_nowait()
    first, second = envelope(), envelope()
    await mailbox.put(first)
    mailbox.put_nowait(second)
    assert mailbox.full()
    with pytest.raises(asyncio.QueueFull):
        mailbox.put_nowait(envelope())
    assert await mailbox.get() is first
    assert mailbox.get_nowait() is second
    assert "hunter2" not in repr(mailbox)


async def test_commands_come_first_and_take_no_room() -> None:
    """The lane of commands holds one of each class, and is read before the messages."""
    mailbox, message, crash = Mailbox(1, "wait"), envelope(), envelope(Crash(ValueError()))
    mailbox.put_nowait(message)
    for command in (STOP, crash, STOP, envelope(Crash(ValueError()))):
        mailbox.put_command(command)
    assert mailbox.qsize() == 3
    assert [mailbox.get_nowait() for _ in range(3)] == [STOP, crash, message]


async def test_internal_messages_are_admitted_to_a_full_mailbox() -> None:
    """They take room all the same: a sender is let in when there is some again."""
    mailbox = Mailbox(1, "wait")
    for _ in range(3):
        mailbox.put_internal(envelope())
    sender = asyncio.create_task(mailbox.put(envelope()))
    for left in (2, 1):
        await asyncio.sleep(0)
        mailbox.get_nowait()
        assert mailbox.qsize() == left
    await asyncio.sleep(0)
    assert not sender.done()
    mailbox.get_nowait()
    await sender
    assert mailbox.qsize() == 1


async def test_close_sends_the_senders_away() -> None:
    """Senders that wait for room get ``MailboxClosed``; what is inside can still be read."""
    mailbox = Mailbox(1, "wait")
    mailbox.put_nowait(envelope())
    senders = [asyncio.create_task(mailbox.put(envelope())) for _ in range(3)]
    await asyncio.sleep(0)
    mailbox.close()
    results = await asyncio.gather(*senders, return_exceptions=True)
    assert {type(result) for result in results} == {MailboxClosed}
    with pytest.raises(MailboxClosed):
        mailbox.put_nowait(envelope())
    assert mailbox.qsize() == 1
    mailbox.get_nowait()
    with pytest.raises(MailboxClosed):
        mailbox.put_nowait(envelope())


async def test_a_waiting_reader_is_woken_by_either_lane() -> None:
    """A message, an internal message and a command all wake the actor."""
    mailbox = Mailbox(1, "wait")
    for put in (mailbox.put_nowait, mailbox.put_internal, mailbox.put_command):
        reader = asyncio.create_task(mailbox.get())
        await asyncio.sleep(0)
        item = envelope()
        put(item)
        assert await reader is item
