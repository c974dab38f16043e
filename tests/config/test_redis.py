"""Redis URLs: every form that is written, and a sentence for what is not one."""

import pytest

from config.redis import RedisAddress, RedisHost, parse_redis_url

CANARY = "canary-that-nobody-must-see"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "redis://localhost",
            RedisAddress("plain", False, (RedisHost("localhost", 6379),), "", "", 0, ""),
        ),
        (
            "rediss://ice:p%40ss@[2001:db8::1]:7000/3",
            RedisAddress("plain", True, (RedisHost("2001:db8::1", 7000),), "ice", "p@ss", 3, ""),
        ),
        (
            "redis+sentinel://:p@a,b:1,c/main/2",
            RedisAddress(
                "sentinel",
                False,
                (RedisHost("a", 26379), RedisHost("b", 1), RedisHost("c", 26379)),
                "",
                "p",
                2,
                "main",
            ),
        ),
        (
            "rediss+cluster://a:7000,b:7001",
            RedisAddress(
                "cluster", True, (RedisHost("a", 7000), RedisHost("b", 7001)), "", "", 0, ""
            ),
        ),
    ],
)
def test_what_a_url_says(url: str, address: RedisAddress):
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", "write redis://HOST"),
        ("http://localhost", "write redis://HOST"),
        ("redis://", "no HOST or HOST:PORT"),
        (f"redis://:{CANARY}@", "no HOST or HOST:PORT"),
        (f"redis://:{CANARY}@a b", "no HOST or HOST:PORT"),
        ("redis://a:70000", "no HOST or HOST:PORT"),
        ("redis://a:0", "no HOST or HOST:PORT"),
        (f"redis://a/{CANARY}", "number of a database"),
        ("redis://a/1/2", "number of a database"),
        (f"redis://a?password={CANARY}", "options behind ?"),
        ("redis+sentinel://a", "the primary's name"),
        ("redis+cluster://a/1", "one database"),
    ],
)
def test_what_is_no_url_is_told_without_its_secrets(url: str, words: str):
    with pytest.raises(ValueError, match=r".") as refused:
        parse_redis_url(url)
    assert words in str(refused.value)
    assert CANARY not in str(refused.value)


def test_a_host_is_written_as_people_do():
    assert str(RedisHost("a", 1)) == "a:1"
    assert str(RedisHost("::1", 1)) == "[::1]:1"
