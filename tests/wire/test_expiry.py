import asyncio

from actors.wire.expiry import Expiry


async def test_whose_time_is_up_is_taken_out_in_order() -> None:
    """Each once, and not those that were removed before."""
    gone: list[str] = []
    some: Expiry[str] = Expiry(0.01, gone.append)
    for name in "abcd":
        some.add(name)
    some.remove("b")
    some.remove("b")
    assert ([*some], len(some), "a" in some, "b" in some) == (["a", "c", "d"], 3, True, False)
    await until_empty(some)
    assert gone == ["a", "c", "d"]
    assert some._timer is None


async def test_one_timer_for_all() -> None:
    """It goes on to the next one's time."""
    gone: list[str] = []
    some: Expiry[str] = Expiry(0.02, gone.append)
    some.add("a")
    timer = some._timer
    loop = asyncio.get_running_loop()
    later = loop.create_future()
    loop.call_later(0.01, later.set_result, None)
    await later
    some.add("b")
    assert some._timer is timer
    await until_empty(some)
    assert gone == ["a", "b"]


async def test_closing_forgets_all() -> None:
    """Nobody is told, and there is no timer left."""
    gone: list[str] = []
    some: Expiry[str] = Expiry(0.0, gone.append)
    some.add("a")
    some.close()
    some.close()
    assert (len(some), some._timer, gone) == (0, None, [])


async def until_empty(some: "Expiry[str]") -> None:
    """Wait for the last one's time."""
    over = asyncio.Event()
    expired = some._expired

    def told(name: str) -> None:
        expired(name)
        if not len(some):
            over.set()

    some._expired = told
    await over.wait()
