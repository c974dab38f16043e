"""The browser client as an npm package: packed, installed from the tarball, and used."""

import asyncio
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.conftest import need
from tests.interop.browser import stage
from tests.interop.process import free_port
from tests.interop.site import site
from tests.npm_packages import npm_package

ROOT = Path(__file__).parents[2]
WEB = ROOT / "signaling" / "web"
NAME = "icebroker-client"

APPLICATION = """
import { Icebroker, IcebrokerError, join, onlyTransport, pathOf, type Path, type Room } from "icebroker-client";

async function call(stream: MediaStream): Promise<Room> {
  const room = await join("demo", { url: "wss://host/ws", token: async () => "t", media: stream, meta: { a: 1 } });
  room.on("track", (peer, stream, track) => { const kind: string = track.kind; peer.send({ kind, id: stream.id }); });
  room.on("path", (peer, path: Path) => console.log(peer.name, path.rtt ?? 0));
  room.on("close", (error?: IcebrokerError) => console.log(error?.code, error?.retryable));
  const status: "delivered" | "queued" = await room.post([1], [...room.peers.values()][0]);
  const better = onlyTransport(room.iceServers, "tls");
  const path: Path | null = await pathOf(new RTCPeerConnection({ iceServers: better }));
  // @ts-expect-error there is no such event
  room.on("nonsense", () => undefined);
  // @ts-expect-error a room's name is text
  new Icebroker().room(7);
  return status === "queued" && path ? room : new Icebroker({ name: "Ada" }).join("other");
}
void call;
"""  # noqa: E501 - as an application has it


def run(*command: str | Path, cwd: Path) -> str:
    """A command's output; it has to succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``npm pack`` says of what it made."""
    folder = tmp_path_factory.mktemp("pack")
    out = run(need("npm"), "pack", "--json", "--pack-destination", folder, cwd=WEB)
    found: dict[str, Any] = json.loads(out[out.index("[") :])[0]
    return {**found, "tarball": folder / found["filename"]}


@pytest.fixture(scope="module")
def installed(packed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An application that has it as its only dependency."""
    folder = tmp_path_factory.mktemp("application")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    options = ("--offline", "--no-audit", "--no-fund", "--ignore-scripts")
    run(need("npm"), "install", *options, packed["tarball"], cwd=folder)
    return folder


def test_the_package_has_the_client_and_nothing_else(packed: dict[str, Any]):
    names = {file["path"] for file in packed["files"]}
    modules = {f"assets/client/{path.name}" for path in (WEB / "assets/client").glob("*.js")}
    texts = {"LICENSE", "README.md", "package.json", "client.js", "client.d.ts"}
    assert names == modules | texts
    assert not (WEB / "LICENSE").exists(), "the license is put there for packing only"


def test_its_version_is_the_server_s(packed: dict[str, Any]):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert packed["name"] == NAME
    assert packed["version"] == project["version"]


def test_node_imports_it(installed: Path):
    code = f"import * as client from '{NAME}'; console.log(Object.keys(client).sort().join())"
    out = run(need("node"), "--input-type=module", "-e", code, cwd=installed)
    exports = "Emitter,Icebroker,IcebrokerError,Peer,Room,Signaler,join,onlyTransport,pair,pathOf"
    assert out.strip() == exports


@pytest.mark.parametrize("resolution", ["bundler", "nodenext"])
def test_an_application_in_typescript_compiles_against_it(installed: Path, resolution: str):
    (installed / "application.ts").write_text(APPLICATION)
    compiler = npm_package("typescript") / "bin" / "tsc"
    module = {"bundler": "esnext", "nodenext": "nodenext"}[resolution]
    options = f"--strict --noEmit --target es2022 --module {module} --moduleResolution {resolution}"
    options += " --lib es2022,dom,dom.iterable application.ts"
    run(need("node"), compiler, *options.split(), cwd=installed)


@pytest.mark.asyncio(loop_scope="session")  # the browser is of all
async def test_a_page_calls_with_it_from_another_origin(
    installed: Path, tmp_path: Path, browser: Browser
):
    port = free_port()
    own = f"http://127.0.0.1:{port}"
    join = """async ([module, url, name]) => {
      const { join } = await import(module);
      window.room = await join("packed", { url, name });
      return new Promise((resolve) => {
        room.on("data", (peer, value) => resolve([peer.name, value]));
        for (const peer of room.peers.values()) peer.send("hello");
        room.on("join", (peer) => peer.send("hello"));
      });
    }"""
    async with (
        stage(tmp_path, allowed_origins=[own]) as server,
        site(port, folder=installed / "node_modules" / NAME),
    ):
        pages = [await (await browser.new_context()).new_page() for _ in range(2)]
        for page in pages:
            await page.goto(own)
        heard = await asyncio.gather(
            *(
                page.evaluate(join, ["/client.js", server.websocket, name])
                for page, name in zip(pages, ("Ada", "Bob"), strict=True)
            )
        )
        assert heard == [["Bob", "hello"], ["Ada", "hello"]]
