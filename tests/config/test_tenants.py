"""Tenants in the settings: each has to have credentials that are nobody else's."""

from typing import Any

import pytest

from config.load import load

ONE, OTHER = "a secret of one application", "a secret of the other one"
SHOP = f"[turn.tenants.shop]\nsecret = '{ONE}'\n"
KEY = "A" * 22 + "=="
HEAD = "[turn]\nlisten = ['127.0.0.1:3478']\n"


def test_a_tenant_has_a_secret_users_and_limits(tmp_path):
    file = tmp_path / "icebroker.toml"
    file.write_text(
        f'[turn.tenants.shop]\nsecret = ["{ONE}", "the one before it, still good"]\n'
        'users = {carol = "pw"}\nmax_allocations = 200\nmax_allocations_per_user = 4\n'
        f'max_bytes_per_second = 10_000_000\n[turn.tenants.clinic]\nsecret = "{OTHER}"\n'
    )
    turn = load(file, environment={}, services=["turn"]).turn
    shop, clinic = turn.tenants["shop"], turn.tenants["clinic"]
    assert len(shop.secret) == 2
    assert shop.users["carol"].get_secret_value() == "pw"
    assert (shop.max_allocations, shop.max_allocations_per_user) == (200, 4)
    assert shop.max_bytes_per_second == 10_000_000
    assert (clinic.max_allocations, clinic.max_bytes_per_second) == (0, 0)
    assert [turn.secret_of(name) for name in ("", "shop", "clinic")] == ["", ONE, OTHER]


def test_the_environment_has_them_too(tmp_path):
    file = tmp_path / "icebroker.toml"
    file.write_text("[turn.tenants.shop]\nmax_allocations = 3\n")
    turn = load(file, environment={"ICEBROKER_TURN__TENANTS__SHOP__SECRET": ONE}).turn
    assert (turn.secret_of("shop"), turn.tenants["shop"].max_allocations) == (ONE, 3)
    whole = {"ICEBROKER_TURN__TENANTS": f'{{"shop": {{"secret": "{ONE}"}}}}'}
    assert load(environment=whole).turn.secret_of("shop") == ONE


@pytest.mark.parametrize(
    ("toml", "line", "told"),
    [
        ("[turn.tenants.shop]\nmax_allocations = 1\n", 3, "turn.tenants.shop.secret: is missing"),
        ("[turn.tenants]\nshop = {}\n", 4, "turn.tenants.shop.secret: is missing"),
        ("[turn.tenants.shop]\nsecret = ''\n", 4, "turn.tenants.shop.secret: is missing"),
        (
            f"[turn.tenants.shop]\nsecret = '{ONE}'\n[turn.tenants.clinic]\nsecret = '{ONE}'\n",
            6, "turn.tenants.clinic.secret: is the same as turn.tenants.shop.secret",
        ),
        (
            f"secret = ['{OTHER}', '{ONE}']\n[turn.tenants.shop]\nsecret = '{ONE}'\n",
            5, "turn.tenants.shop.secret: is the same as turn.secret",
        ),
        (
            f"[turn.tenants.'Shop']\nsecret = '{ONE}'\n",
            3, "turn.tenants.Shop: 'Shop' is no name of a tenant",
        ),
        (
            f"[turn.tenants.'a/b']\nsecret = '{ONE}'\n",
            3, "turn.tenants.a/b: 'a/b' is no name of a tenant",
        ),
        (
            f"[turn.tenants.{'x' * 33}]\nsecret = '{ONE}'\n", 3, "is no name of a tenant",
        ),
        (
            f"[turn.tenants.shop]\nsecret = '{ONE}'\n[turn.users]\n'shop/eve' = 'pw'\n",
            5, "turn.users: 'shop/eve' would be a user of the tenant 'shop'",
        ),
        (
            f"third_party_name = 'x'\nthird_party_keys = {{'shop/k' = '{KEY}'}}\n{SHOP}",
            4, "turn.third_party_keys: 'shop/k' would be a user of the tenant 'shop'",
        ),
        (
            "[turn.tenants.shop.users]\n'a:b' = 'pw'\n",
            3, "turn.tenants.shop.users: 'a:b' is no user name",
        ),
        (
            "[turn.tenants.shop.users]\n'shop/eve' = 'pw'\n",
            3, "turn.tenants.shop.users: 'shop/eve' is called 'eve' here: clients add the",
        ),
        ("[turn.tenants.shop.users]\na = ''\n", 3, "the password of 'a' is empty"),
        (
            f"[turn.tenants.shop]\nsecret = '{ONE}'\nmax_allocations = -1\n",
            5, "turn.tenants.shop.max_allocations: input should be greater",
        ),
        (
            f"[turn.tenants.shop]\nsecret = '{ONE}'\nmax_peers = 1\n",
            5, "turn.tenants.shop.max_peers: no such key",
        ),
        ("tenants = 5\n", 3, "turn.tenants: expected a table"),
        ("tenants = {shop = 5}\n", 3, "turn.tenants.shop: expected a table"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_where_it_stands(operator: Any, toml, line, told):
    (problem,) = operator.problems(HEAD + toml)
    assert f":{line}: " in problem
    assert told in problem


def test_a_short_secret_is_refused_where_strangers_come_in(operator: Any):
    toml = "[turn]\n[turn.tenants.shop]\nsecret = 'too short'\n"
    (problem,) = operator.problems(toml, services=["turn"])
    assert "turn.tenants.shop.secret: the secret is shorter" in problem


def test_a_relay_with_tenants_needs_no_secret_of_its_own(operator: Any):
    toml = f"[turn.tenants.shop]\nsecret = '{ONE}'\n"
    assert operator.settings(toml, services=["turn"]).turn.secret == ()


@pytest.mark.parametrize(
    "tenants", ["", "[turn.tenants.shop]\nusers = {carol = 'pw'}\n"], ids=["none", "no secret"]
)
def test_signaling_makes_no_credentials_for_a_tenant_without_a_secret(operator: Any, tenants):
    (problem,) = operator.problems(f"{tenants}[signaling]\nice_tenant = 'shop'\n")
    assert "signaling.ice_tenant: 'shop' is none of turn.tenants that has a secret" in problem
