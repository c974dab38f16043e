"""A name says whose it is, and the secret of nobody else proves it; one signature, as ever."""

import time

import pytest

from config.tenants import TenantSettings
from config.turn import TurnSettings
from turn import assemble
from turn.auth import credentials
from turn.auth.authenticate import Authenticator, Now
from turn.auth.credentials import Credentials, PasswordAlgorithm, Tenant, long_term_key
from turn.auth.ephemeral import mint, name_in, password_of
from turn.auth.nonce import Feature, Nonces
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.integrity import Integrity
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

REALM, WALL = "icebroker", 1_800_000_000.0
RELAYS, SHOPS, NEW, CLINICS = (f"the secret of {name}" for name in ("us", "shop", "new", "clinic"))
TENANTS = {
    "shop": Tenant({"carol": "pw"}, [NEW, SHOPS]),
    "clinic": Tenant({}, [CLINICS]),
    "bare": Tenant({"dave": "pw"}, []),
}
KNOWN = Credentials(REALM, {"alice": "pw"}, [RELAYS], TENANTS)
CLIENT = Address("192.0.2.7", 40000)
NONCE = Nonces(b"key", 600, Feature.PASSWORD_ALGORITHMS).make(CLIENT.host, CLIENT.port, WALL)


def passwords_of(username: str) -> list[str]:
    """The secrets that would be believed, by what they make."""
    keys = [one.key(PasswordAlgorithm.MD5) for one in KNOWN.accounts(username, WALL)]
    made = {
        long_term_key(username, REALM, password_of(secret, username)): secret
        for secret in (RELAYS, SHOPS, NEW, CLINICS)
    }
    return [made[key] for key in keys]


@pytest.mark.parametrize(
    ("name", "user", "tenant", "secrets"),
    [
        ("alice", "alice", "", [RELAYS]),
        ("shop/alice", "shop/alice", "shop", [NEW, SHOPS]),
        ("clinic/alice", "clinic/alice", "clinic", [CLINICS]),
        ("shop/", "shop/", "shop", [NEW, SHOPS]),
        ("shop/clinic/alice", "shop/clinic/alice", "shop", [NEW, SHOPS]),
        ("shop", "shop", "", [RELAYS]),
        ("SHOP/alice", "SHOP/alice", "", [RELAYS]),
        ("/shop/alice", "/shop/alice", "", [RELAYS]),
        (" shop/alice", " shop/alice", "", [RELAYS]),
        ("5:shop/alice", "5:shop/alice", "", [RELAYS]),
        ("other/alice", "other/alice", "", [RELAYS]),
        ("bare/alice", "bare/alice", "bare", []),
    ],
)
def test_a_name_says_whose_secrets_are_tried_and_no_others_are(name, user, tenant, secrets):
    username = f"1800000600:{name}"
    assert passwords_of(username) == secrets
    assert KNOWN.tenant_of(username) == tenant
    assert {(one.user, one.tenant) for one in KNOWN.accounts(username, WALL)} <= {(user, tenant)}


def test_a_static_user_of_a_tenant_is_called_by_both_names():
    (found,) = KNOWN.accounts("shop/carol", WALL)
    assert (found.username, found.user, found.tenant) == ("shop/carol", "shop/carol", "shop")
    assert found.key(PasswordAlgorithm.MD5) == long_term_key("shop/carol", REALM, "pw")
    assert KNOWN.accounts("carol", WALL) == ()
    assert KNOWN.accounts("clinic/carol", WALL) == ()


@pytest.mark.parametrize("username", [":shop/alice", "x:shop/alice", "²:shop/alice", ":x"])
def test_what_nobody_can_sign_is_no_tenants(username):
    assert KNOWN.tenant_of(username) == ""
    assert KNOWN.accounts(username, WALL) == ()


def test_no_user_of_one_can_be_written_as_a_user_of_another():
    """Whatever an application lets its users call themselves."""
    names = ["alice", "shop/alice", "clinic/alice", "1:clinic/alice", "/alice", "", ":"]
    users: dict[str, str] = {}
    for tenant in ("", "shop", "clinic"):
        for name in names:
            username, _ = mint("", name_in(tenant, name), int(WALL) + 600)
            for one in KNOWN.accounts(username, WALL):
                assert users.setdefault(one.user, one.tenant) == one.tenant
                assert not tenant or one.tenant == tenant
    assert set(users.values()) == {"", "shop", "clinic"}


def test_a_tenants_expired_name_begins_nothing():
    assert KNOWN.accounts("1799999999:shop/alice", WALL) == ()
    assert len(KNOWN.accounts("1799999999:shop/alice", None)) == 2


def test_names_that_a_secret_signs_have_no_hash_whoseever_the_secret_is():
    static = {"one": Tenant({"alice": "pw"}, [])}
    assert Credentials(REALM, {}, [], static).anonymous
    assert not Credentials(REALM, {"alice": "pw"}, [], TENANTS).anonymous


def authenticate(username, password, settings=None, **kwargs):
    made = Authenticator(REALM, KNOWN, b"key", 600) if settings is None else settings
    data = build(
        Method.ALLOCATE, MessageClass.REQUEST, bytes(12),
        ((registry.USERNAME, username), (registry.REALM, REALM), (registry.NONCE, NONCE)),
        key=long_term_key(username, REALM, password), integrity=Integrity.SHA1,
    )  # fmt: skip
    return made.authenticate(parse_untrusted(data), CLIENT, Now(1000.0, WALL), begins=True)


@pytest.mark.parametrize("tenant", ["", "shop", "clinic"])
def test_each_is_whose_secret_proves_it(tenant):
    secret = {"": RELAYS, "shop": SHOPS, "clinic": CLINICS}[tenant]
    identity = authenticate(*mint(secret, name_in(tenant, "alice"), int(WALL) + 600))
    assert (identity.user, identity.tenant) == (name_in(tenant, "alice"), tenant)


@pytest.mark.parametrize(
    ("name", "secret", "why"),
    [
        ("shop/alice", RELAYS, "turn.tenants.shop.secret did not make it"),
        ("shop/alice", CLINICS, "turn.tenants.shop.secret did not make it"),
        ("alice", SHOPS, "turn.secret did not make it (the name of a tenant's user begins with"),
        ("bare/alice", "", "there is no such user"),
    ],
)
def test_no_other_secret_does_and_the_operator_is_told_which_would(name, secret, why):
    with pytest.raises(StunError) as refused:
        authenticate(*mint(secret, name, int(WALL) + 600))
    assert refused.value.code == 401
    assert why in refused.value.why


def test_a_hundred_tenants_cost_a_false_credential_no_more(monkeypatch):
    """One key is made for each secret of the one that the name says, as for the relay's own."""
    made = []

    def counted(secret, username):
        made.append(secret)
        return password_of(secret, username)

    monkeypatch.setattr(credentials, "password_of", counted)
    tenants = {f"app{n}": Tenant({}, [f"the secret of application {n}"]) for n in range(100)}
    crowd = Authenticator(REALM, Credentials(REALM, {}, [RELAYS], tenants), b"key", 600)
    for n, name in enumerate(("app7/mallory", "app0/mallory", "nobody/mallory", "mallory")):
        with pytest.raises(StunError):
            authenticate(f"{int(WALL) + 600 + n}:{name}", "wrong", crowd)
    assert made == [f"the secret of application {n}" for n in (7, 0)] + [RELAYS, RELAYS]


class TestNonces:
    """What makes them is nobody's to know who may not authenticate for every address."""

    def nonce_key(self, **settings) -> bytes:
        made = assemble.authenticator(TurnSettings.model_validate(settings), b"of this process")
        return made._nonces.make("192.0.2.7", 1, WALL).encode()

    def test_the_relays_secret_makes_them_where_there_is_one(self):
        shop = {"shop": {"secret": SHOPS}}
        assert self.nonce_key(secret=RELAYS) == self.nonce_key(secret=RELAYS, tenants=shop)

    def test_else_those_of_all_tenants_together(self):
        both = {"shop": {"secret": SHOPS}, "clinic": {"secret": CLINICS}}
        made = self.nonce_key(tenants=both)
        assert made == self.nonce_key(tenants=dict(reversed(both.items())))
        assert made != self.nonce_key(secret=SHOPS)
        assert made != self.nonce_key(tenants={"shop": both["shop"]})

    def test_without_a_secret_the_process_makes_its_own(self):
        named = {"shop": TenantSettings.model_validate({"users": {"carol": "pw"}})}
        assert self.nonce_key(tenants=named) == self.nonce_key(users={"carol": "pw"})


def test_stun_only_knows_no_tenant():
    settings = {"stun_only": True, "tenants": {"shop": {"secret": SHOPS}}}
    made = assemble.authenticator(TurnSettings.model_validate(settings), b"key")
    with pytest.raises(StunError):
        authenticate(*mint(SHOPS, "shop/alice", int(time.time()) + 600), made)
    assert made.tenant_of("1:shop/alice") == ""
