"""Chromium at a relay that has IPv6 addresses only. It names no family when it asks for one."""

import pytest
from playwright.async_api import Browser

from tests.interop.process import free_port
from tests.interop.site import site
from tests.turn.live import port_of, relay

pytestmark = pytest.mark.asyncio(loop_scope="session")
ECHO = """async (port) => {
    const server = { urls: `turn:[::1]:${port}`, username: "alice", credential: "pw" };
    const open = () => new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: "relay" });
    const near = open(), far = open(), codes = [];
    // Above 700 it speaks of the way to the server, from one of the machine's own addresses.
    near.onicecandidateerror = ({ errorCode }) => errorCode < 700 && codes.push(errorCode);
    /** Describe one end to the other, with all its candidates. */
    const describe = async (one, other) => {
        const gathered = new Promise((resolve) => (one.onicecandidate = (e) => {
            if (!e.candidate) resolve();
        }));
        await one.setLocalDescription();
        await gathered;
        await other.setRemoteDescription(one.localDescription);
    };
    const channel = near.createDataChannel("echo");
    const heard = new Promise((resolve) => (channel.onmessage = ({ data }) => resolve(data)));
    channel.onopen = () => channel.send("there and back");
    far.ondatachannel = ({ channel: other }) => (other.onmessage = ({ data }) => other.send(data));
    await describe(near, far);
    if (codes.length) return codes[0];
    await describe(far, near);
    return heard;
}"""


@pytest.mark.parametrize(("family", "comes"), [("ipv4", 440), ("client", "there and back")])
async def test_it_is_given_one_where_the_operator_says_so(browser: Browser, family: str, comes):
    changes = {"relay_addresses": ["::1"], "default_address_family": family}
    async with relay(listen=["[::1]:0"], **changes) as service, site(free_port()) as url:
        page = await browser.new_page()
        await page.goto(url)
        assert await page.evaluate(ECHO, port_of(service)) == comes
        await page.close()
