"""Sentinels, a Cluster, TLS and least rights: what each kind of Redis is there for."""

import asyncio
import itertools
import re
from contextlib import suppress
from functools import partial

import pytest
import redis
from pydantic import SecretStr

from config.redis import RedisTls
from config.schema import RedisSettings
from signaling.broker import alone
from signaling.broker.base import Later, Unavailable
from signaling.broker.choose import choose_broker
from signaling.broker.scripts import FOLDER
from signaling.examine import examine_redis
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL
from tests.patience import until
from tests.redis_sites import (
    ACL,
    KNOWN_AS,
    PASSWORD,
    PREFIX,
    cluster,
    cluster_over_tls,
    guarded_sentinel,
    plain,
    sentinel_over_tls,
    sentinels,
    tls,
)
from tests.signaling.broker.worlds import Ear, begin, message, redis_broker, redis_world


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A single server."""
    with plain(tmp_path_factory.mktemp("plain")) as site:
        yield site


# Rights ----------------------------------------------------------------------------------------


@pytest.fixture
def as_icebroker(one):
    """A connection with the rights of a node."""
    with redis.Redis(port=one.server.port, username="icebroker", password=PASSWORD) as client:
        yield client


@pytest.mark.parametrize(
    "command",
    [
        "KEYS *", "SCAN 0", "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET dir /tmp", "SAVE",
        "ACL LIST", "CLIENT LIST", "CLIENT KILL 1:1", "MONITOR", "SHUTDOWN",
        "REPLICAOF NO ONE", "MODULE LIST", "FUNCTION LIST", "SCRIPT FLUSH", "EVAL 'return 1' 0",
        "CLUSTER NODES", "CLUSTER RESET", "SUBSCRIBE x", "PSUBSCRIBE *", "PUBLISH x y",
        "MIGRATE h 1 k 0 1", "RESTORE k 0 x", "DUMP k", "RENAME a b", "SORT k", "PERSIST k",
        "GET other", "SET other x", "GET {icebroker", "GET {icebroker-2}:x", "SPUBLISH other x",
        "SSUBSCRIBE other",
    ],
)  # fmt: skip
def test_a_node_may_do_nothing_else(as_icebroker, command):
    with pytest.raises(redis.exceptions.NoPermissionError):
        as_icebroker.execute_command(*re.findall(r"'[^']*'|\S+", command))


def test_a_script_may_do_no_more_than_its_node(as_icebroker):
    for line in ("redis.call('FLUSHALL')", "return redis.call('GET', 'other')"):
        sha = as_icebroker.script_load(line)
        with pytest.raises(redis.exceptions.ResponseError, match=r"user executing the script"):
            as_icebroker.evalsha(sha, 1, "{icebroker}:x")


def test_a_node_may_do_what_its_scripts_do_and_its_links_need():
    texts = [path.read_text() for path in FOLDER.glob("*.lua")]
    called = {name.lower() for text in texts for name in re.findall(r"redis\.call\('(\w+)'", text)}
    granted = {rule[1:] for rule in ACL.read_text().split() if rule.startswith("+")}
    assert granted - called == {
        "auth", "hello", "ping", "select", "client|setname", "info", "cluster|slots",
        "script|load", "evalsha", "ssubscribe", "sunsubscribe",
    }  # fmt: skip
    assert called <= granted


def test_the_shipped_user_cannot_log_in_before_it_has_a_password():
    rules = ACL.read_text().split()
    assert rules[:4] == ["user", "icebroker", "on", "resetpass"]
    assert not any(rule.startswith((">", "#", "nopass")) for rule in rules)


async def test_a_wrong_password_is_told_without_telling_it(one, capsys, monkeypatch):
    monkeypatch.setattr(one, "url", one.url.replace(":of-the", ":canary-that-nobody-must-see"))
    broker = redis_broker(one, PREFIX)
    await broker.start(Ear())
    assert not broker.is_up()
    await broker.stop()
    told = capsys.readouterr().out
    assert "redis is away" in told
    assert "WRONGPASS" in told or "username-password" in told
    assert "canary" not in told


# TLS -------------------------------------------------------------------------------------------


async def test_a_certificate_of_a_stranger_is_not_believed(tmp_path, capsys):
    with tls(tmp_path) as site:
        site.tls = site.tls._replace(authority=None)
        broker = redis_broker(site, PREFIX)
        await broker.start(Ear())
        assert not broker.is_up()
        await broker.stop()
    assert "certificate verify failed" in capsys.readouterr().out


async def test_who_shows_no_certificate_is_told_that_redis_may_want_one(tmp_path, capsys):
    with tls(tmp_path) as site:
        authority = site.tls.authority
        site.tls = RedisTls(authority)
        broker = redis_broker(site, PREFIX)
        await broker.start(Ear())
        assert not broker.is_up()
        await broker.stop()
        settings = RedisSettings(url=SecretStr(site.url), ca_certificate=authority)
        found = await examine_redis(settings)
        assert found.status == "fail"
        assert "redis.tls_certificate" in found.next
    host = site.url.partition("@")[2]
    assert f"at={host}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [sentinel_over_tls, cluster_over_tls])
async def test_the_primary_is_found_and_used_over_tls(tmp_path, kind):
    with kind(tmp_path) as site:
        async with redis_world(site, PREFIX) as world:
            assert world.one.is_up()
            await begin(world.one, "a", "r")
            await begin(world.two, "b", "r")
            assert await world.one.send("a", "peer-b", message("hi")) is True


# Another server --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [sentinels, cluster])
async def test_when_another_server_has_our_keys_all_begin_anew_there(tmp_path, kind):
    with kind(tmp_path) as site:
        async with redis_world(site, PREFIX, lease=2.0) as world:
            await begin(world.one, "a", "r")
            await begin(world.two, "b", "r")
            before = site.server
            await asyncio.to_thread(site.change_servers)
            assert site.server is not before
            await until(lambda: world.one.is_up() and world.two.is_up())
            # What a replica had not got yet is lost: nobody goes on as if nothing had been.
            await until(lambda: len(world.ear.cuts) == 2)
            assert sorted(world.ear.cuts) == [(name, CloseCode.SESSION_OVER) for name in "ab"]
            assert await world.two.resume("a", b"a", 0) is None
            await begin(world.one, "c", "r")
            await begin(world.two, "d")
            assert [peer.id for peer in await world.two.join("d", "r", NULL, 64)] == ["peer-c"]
            await world.one.send("c", "peer-d", message("here"))
            assert ("message", "here") in [event[:2] for event in await world.heard("d")]
            assert site.without_ttl() == []


@pytest.mark.parametrize("kind", [plain, sentinels, cluster])
async def test_what_a_node_did_alone_is_put_right_whatever_redis_is(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(alone, "GRACE", 0.0)
    with kind(tmp_path) as site:
        async with redis_world(site, PREFIX, lease=2.0) as world:
            for name in "ab":
                await begin(world.one, name, "r")
            await begin(world.two, "far", "r")
            await world.settle()
            with monkeypatch.context() as cut:
                cut.setattr(world.nodes[0]._link._finder, "find", nowhere)
                site.client.client_kill_filter(_type="normal", skipme=True)
                await until(lambda: not world.one.is_up())
                answers = []
                for number in range(2):
                    with pytest.raises(Later) as later:
                        await world.one.broadcast("a", message(number), f"id {number}")
                    answers.append(later.value.answer)
                _, jump, _ = next(one for one in world.ear.delivered if b'"jump"' in one[2])
                await world.one.acknowledge("a", jump)
                said = [text for name, _, text in world.ear.delivered if name == "b"]
                assert sum(b'"message"' in text for text in said) == 2
            await until(world.one.is_up)
            await until(world.two.is_up)
            assert [await answer for answer in answers] == [True, True]
            for name in ("b", "far"):
                heard = await world.heard(name)
                assert [what for kind, what, _ in heard if kind == "message"] == [0, 1]
            assert site.without_ttl() == []


async def nowhere():
    raise OSError("cut off")


def seen(world, ends):
    """Whether so many sessions have ended."""
    return len(world.ear.cuts) == ends


async def test_a_slot_that_comes_back_brings_nothing_of_before(tmp_path):
    with cluster(tmp_path) as site:
        async with redis_world(site, PREFIX, lease=2.0) as world:
            servers = [site.server]
            await begin(world.one, "a", "r")
            for moves in (1, 2, 3):
                await asyncio.to_thread(site.change_servers)
                servers.append(site.server)
                await until(partial(seen, world, moves))
                await until(lambda: world.one.is_up() and world.two.is_up())
                assert await world.two.resume("a", b"a", 0) is None
                await begin(world.one, "b", "r")
            assert len(set(servers)) < len(servers)


async def test_what_cannot_be_done_where_a_slot_is_moving_is_tried_again(tmp_path):
    with cluster(tmp_path) as site:
        async with redis_world(site, PREFIX, lease=2.0) as world:
            await begin(world.one, "a", "r")
            asked = asyncio.create_task(asyncio.to_thread(site.change_servers))
            numbers = itertools.count()
            while not asked.done() or not world.one.is_up():
                with suppress(Unavailable):
                    await world.one.reap(0)
                    await begin(world.one, f"s{next(numbers)}")
                await asyncio.sleep(0.01)
            await asked
            await begin(world.one, "b", "r")


async def test_sentinels_that_do_not_know_our_primary_are_told_of(tmp_path, capsys):
    with sentinels(tmp_path) as site:
        site.url = site.url.replace(f"/{KNOWN_AS}", "/another")
        broker = redis_broker(site, PREFIX)
        await broker.start(Ear())
        assert not broker.is_up()
        await broker.stop()
    assert "knows no primary named 'another'" in capsys.readouterr().out


@pytest.mark.parametrize(
    "lines",
    [
        [f'requirepass "{PASSWORD}"'],
        [
            f"user default on >{PASSWORD} ~* &* +@all",
            f"user icebroker on >{PASSWORD} -@all +client +sentinel|get-master-addr-by-name",
        ],
    ],
    ids=["a password", "users"],
)
async def test_sentinels_may_have_the_same_password(tmp_path, lines):
    with guarded_sentinel(tmp_path, *lines) as site:
        broker = redis_broker(site, PREFIX)
        await broker.start(Ear())
        assert broker.is_up()
        await broker.stop()


OWN = "of-the-sentinels"


@pytest.mark.parametrize(
    ("username", "lines"),
    [
        ("", [f'requirepass "{OWN}"']),
        (
            "watcher",
            [
                "user default on >another -@all",
                f"user watcher on >{OWN} -@all +client|setname +sentinel|get-master-addr-by-name",
            ],
        ),
    ],
    ids=["a password", "users"],
)
async def test_sentinels_may_have_a_password_of_their_own(tmp_path, username, lines):
    with guarded_sentinel(tmp_path, *lines) as site:
        settings = RedisSettings(
            url=SecretStr(site.url), sentinel_username=username, sentinel_password=SecretStr(OWN)
        )
        broker = choose_broker(settings, 8, 10_000)
        await broker.start(Ear())
        assert broker.is_up()
        await broker.stop()
        assert (await examine_redis(settings)).status == "ok"
        for wrong in ("", "another one"):
            settings = RedisSettings(url=SecretStr(site.url), sentinel_password=SecretStr(wrong))
            found = await examine_redis(settings)
            assert found.status == "fail"
            assert "redis.sentinel_password" in found.next


async def test_a_dead_sentinel_or_node_is_passed_over(tmp_path):
    with cluster(tmp_path) as site:
        site.url = site.url.replace("@", "@127.0.0.1:1,")
        broker = redis_broker(site, PREFIX)
        await broker.start(Ear())
        assert broker.is_up()
        await broker.stop()
