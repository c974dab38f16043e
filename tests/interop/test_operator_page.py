"""The operator's page in Chromium: what it shows of both services, and what its buttons do."""

import pytest
import pytest_asyncio

from tests.operator_api import TOKEN, both_operated
from tests.signaling.live import sockets
from tests.turn.live import UDP, Client, port_of
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def stage():
    """Both services, their operator, and what opens sockets."""
    async with both_operated() as (turn, rooms, api), sockets(rooms) as join:
        yield turn, api, join


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser):
    """A page, and whatever it complains of."""
    one = await (await browser.new_context()).new_page()
    one.set_default_timeout(15000)
    complaints: list[str] = []
    one.on("pageerror", lambda error: complaints.append(str(error)))
    one.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    yield one
    # A refused sign-in is an answer like any other, though the browser logs it.
    assert [line for line in complaints if "401" not in line and "ERR_FAILED" not in line] == []


async def test_it_shows_what_goes_on_and_ends_what_it_is_told_to(stage, page, connect):
    turn, api, join = stage
    client = await connect(port_of(turn))
    await client.allocate()
    intruder = await Client("mallory", "x").connect(port_of(turn))
    await intruder.request(Method.ALLOCATE, UDP)
    intruder.close()
    peer = await join()
    await peer.hello(name=HOSTILE)
    await peer.join("demo")
    await page.goto(f"{api.base}/#token={TOKEN}")
    await page.wait_for_selector("[data-testid=allocations] >> text=alice")
    assert TOKEN not in page.url
    await page.wait_for_selector("[data-testid=state]:text-is('ready')")
    await page.wait_for_selector("[data-testid=refusals] >> text=there is no such user")
    # What happened before the page came is told as well.
    await page.wait_for_selector("[data-testid=events] >> text=allocation created")
    await page.fill("#why input[name=code]", "403")
    await page.click("#why >> text=Filter")
    await page.wait_for_selector("[data-testid=refusals] >> text=nothing of that was refused")
    await page.fill("#why input[name=code]", "401")
    await page.click("#why >> text=Filter")
    await page.wait_for_selector("[data-testid=refusals] >> text=there is no such user")
    # A name is text, whatever it looks like.
    await page.wait_for_selector("[data-testid=peers] >> text=onerror")
    assert await page.title() == "Icebroker operator"
    assert await page.locator("[data-testid=peers] img").count() == 0

    await page.click("[data-testid=allocations] >> text=Details")
    await page.wait_for_selector("#details[open]")
    await page.wait_for_selector("""[data-testid=details]:has-text('"username": "alice"')""")
    await page.click("[data-testid=close]")
    await page.click("[data-testid=rooms] >> text=Who")
    assert await page.input_value("input[name=rooms]") == "demo"

    other = await connect(port_of(turn))
    await other.allocate()
    rows = page.locator("[data-testid=allocations] tbody tr")
    await rows.nth(1).wait_for()
    port = f"{other.sock.getsockname()[1]}"
    await page.wait_for_selector(f"[data-testid=events] >> text=127.0.0.1:{port}")
    await page.click("[data-testid=allocations] tr:nth-child(2) >> text=End")
    await page.click("[data-testid=yes]")
    await page.wait_for_selector("[data-testid=events] >> text=operator")
    await rows.nth(1).wait_for(state="detached")
    assert await rows.count() == 1
    assert turn.stats.allocations_closed["operator"] == 1


async def test_it_says_what_is_dropped_and_who_relays_most(stage, page, connect):
    turn, api, _ = stage
    clients = [await connect(port_of(turn)) for _ in range(2)]
    for client in clients:
        await client.allocate()
    busy = clients[1]
    peer = Address("127.0.0.1", 9)
    await busy.request(
        Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, 0x4001), (registry.XOR_PEER_ADDRESS, peer)
    )
    await page.goto(f"{api.base}/#token={TOKEN}")
    await page.wait_for_selector("[data-testid=allocations] tbody tr:nth-child(2)")
    await busy.send(b"\x40\x01\x00\x04over")
    for _ in range(20):
        await busy.send(b"\x40\x02\x00\x04over")
    await page.wait_for_selector(".tile >> text=packets, mostly no channel")
    await page.select_option("[data-testid=sort]", "sent_bytes")
    first = page.locator("[data-testid=allocations] tbody tr").first
    await first.locator("text=4 B").wait_for()


async def test_a_drain_is_asked_about_seen_and_taken_back(stage, page, connect):
    turn, api, _ = stage
    await (await connect(port_of(turn))).allocate()
    await page.goto(f"{api.base}/#token={TOKEN}")
    await page.click("[data-testid=drain]")
    await page.click("[data-testid=no]")
    assert not turn.draining
    await page.click("[data-testid=drain]")
    await page.click("[data-testid=yes]")
    await page.wait_for_selector("[data-testid=state] >> text=draining: 1 allocations")
    await page.click("[data-testid=drain] >> text=Take work again")
    await page.click("[data-testid=yes]")
    await page.wait_for_selector("[data-testid=state] >> text=ready")
    assert not turn.draining


async def test_nobody_is_let_in_without_the_token(stage, page):
    _, api, _ = stage
    await page.goto(f"{api.base}/#token=wrong")
    await page.wait_for_selector("text=That is not the token.")
    assert not await page.is_visible("main")
    await page.fill("#token", TOKEN)
    await page.click("text=Sign in")
    await page.wait_for_selector("[data-testid=state] >> text=ready")
    await page.reload()
    await page.wait_for_selector("[data-testid=state] >> text=ready")
    await page.click("text=Sign out")
    await page.reload()
    await page.wait_for_selector("#entry")
    assert not await page.is_visible("main")


async def test_it_says_when_the_process_is_gone(stage, page):
    _, api, _ = stage
    await page.goto(f"{api.base}/#token={TOKEN}")
    await page.wait_for_selector("[data-testid=state] >> text=ready")
    await page.route("**/api/**", lambda route: route.abort())
    await page.wait_for_selector("[data-testid=state] >> text=no answer")
    await page.unroute("**/api/**")
    await page.wait_for_selector("[data-testid=state] >> text=ready")
    await page.wait_for_selector("#notice", state="hidden")
