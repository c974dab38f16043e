"""One Redis for the tests of a file, and tests that are run over both brokers."""

from collections.abc import Iterator

import pytest

from config.schema import RedisSettings
from signaling.broker import lease
from tests.redis_server import RedisServer, redis_server
from tests.signaling.live import default_broker, on


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests of a file, which leave it as it was."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
def broker(request: pytest.FixtureRequest) -> RedisSettings | None:
    """Where nodes meet: None, or Redis."""
    return on(request.getfixturevalue("server")) if request.param == "redis" else None


@pytest.fixture
def over_both(broker: RedisSettings | None) -> Iterator[None]:
    """A test whose services have the embedded broker, and then Redis."""
    kept = default_broker.set(broker)
    yield
    default_broker.reset(kept)


@pytest.fixture
def soon_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that answers nobody is taken to be away after one second in place of three."""
    monkeypatch.setattr(lease, "ANSWER", 1.0)
