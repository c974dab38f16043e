"""The peer policy: table edges, encodings of IPv4 in IPv6, own addresses, what operators say."""

from ipaddress import ip_address, ip_network

import pytest

from turn.allocation.policy import (
    REFUSED_IPV4,
    REFUSED_IPV6,
    PeerPolicy,
    PolicyRules,
    embedded_ipv4,
)
from turn.codec.values import Address

NO_RULES = PolicyRules()
PUBLIC = "8.8.8.8"
PUBLIC6 = "2606:4700::1111"


def policy(rules: PolicyRules = NO_RULES, own: tuple[str, ...] = (), *live: Address) -> PeerPolicy:
    return PeerPolicy(rules, own, frozenset(live).__contains__)


@pytest.mark.parametrize("network", [*REFUSED_IPV4, *REFUSED_IPV6], ids=str)
def test_both_edges_of_every_refused_network_are_refused(network):
    for edge in (network[0], network[-1]):
        assert not policy().allows_host(str(edge))
        assert not policy().allows(Address(str(edge), 5000))


@pytest.mark.parametrize(
    "host",
    ["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
     "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0",
     "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
     "223.255.255.255", "168.63.129.15", "168.63.129.17", "2001:200::", "2001:db7:ffff::1",
     "2001:db9::", "2003::", "2620:4f:7fff::", "2620:4f:8001::", "3ffe:ffff::", PUBLIC, PUBLIC6],
)  # fmt: skip
def test_the_neighbours_of_the_refused_networks_are_allowed(host):
    assert policy().allows_host(host)
    assert policy().allows(Address(host, 5000))


@pytest.mark.parametrize(
    "host",
    ["::1", "::", "fe80::1", "fc00::1", "fdff::1", "ff02::1", "ff0e::1", "1fff:ffff::1", "4000::",
     "100::1", "5f00::1"],
)  # fmt: skip
def test_ipv6_outside_of_global_unicast_is_refused(host):
    assert not policy().allows_host(host)


@pytest.mark.parametrize("host", ["2002:808:808::1", "2001:0:808:808::1"])
def test_a_tunnelled_peer_is_refused_even_where_the_operator_allows_it(host):
    """RFC 8656 §21.4 leaves no choice."""
    assert not policy(PolicyRules(allow=(ip_network("::/0"),))).allows_host(host)
    assert policy(PolicyRules(allow=(ip_network("::/0"),))).allows_host("2001:db8::1")


@pytest.mark.parametrize(
    "target", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", PUBLIC]
)
@pytest.mark.parametrize(
    "scheme",
    ["mapped", "compatible", "nat64", "local-nat64", "6to4", "teredo", "isatap", "isatap-global"],
)
def test_an_ipv4_address_inside_ipv6_is_refused_whatever_it_is(scheme, target):
    number = int(ip_address(target))
    encoded = {
        "mapped": 0xFFFF << 32 | number,
        "compatible": number,
        "nat64": 0x64FF9B << 96 | number,
        "local-nat64": 0x64FF9B0001 << 80 | number,
        "6to4": 0x2002 << 112 | number << 80 | 1,
        "teredo": 0x2001 << 112 | 0xC0000201 << 64 | (number ^ 0xFFFFFFFF),
        "isatap": 0x2606_4700 << 96 | 0x00005EFE << 32 | number,
        "isatap-global": 0x2606_4700 << 96 | 0x02005EFE << 32 | number,
    }[scheme]
    host = str(ip_address(encoded.to_bytes(16)))
    assert embedded_ipv4(ip_address(host)) == ip_address(target)
    assert not policy().allows_host(host)
    assert not policy(PolicyRules(open_private=True)).allows_host(host)


def test_a_port_of_zero_is_no_peer():
    assert not policy().allows(Address(PUBLIC, 0))


def test_what_the_operator_denies_is_stronger_than_what_he_allows():
    rules = PolicyRules(allow=(ip_network("10.0.0.0/8"),), deny=(ip_network("10.1.0.0/16"),))
    assert policy(rules).allows(Address("10.0.0.1", 1))
    assert not policy(rules).allows(Address("10.1.0.1", 1))
    assert not policy(rules).allows(Address("172.16.0.1", 1))


def test_a_denied_ipv4_network_is_denied_in_ipv6_clothes_too():
    rules = PolicyRules(allow=(ip_network("::/0"),), deny=(ip_network("192.0.2.0/24"),))
    assert not policy(rules).allows(Address("::ffff:192.0.2.1", 1))
    assert not policy(rules).allows(Address("64:ff9b::192.0.2.1", 1))


class TestOnlyTheAllowed:
    RULES = PolicyRules(allow=(ip_network("10.1.2.3/32"), ip_network(PUBLIC)), only_allowed=True)

    @pytest.mark.parametrize("host", ["10.1.2.3", PUBLIC])
    def test_who_is_allowed_is_a_peer(self, host):
        assert policy(self.RULES).allows(Address(host, 5000))

    @pytest.mark.parametrize("host", ["10.1.2.4", "9.9.9.9", "2606:4700::1111"])
    def test_nobody_else_is(self, host):
        assert not policy(self.RULES).allows_host(host)
        assert not policy(self.RULES._replace(open_private=True)).allows_host(host)

    def test_denied_is_stronger(self):
        judge = policy(self.RULES._replace(deny=(ip_network("10.1.0.0/16"),)))
        assert not judge.allows_host("10.1.2.3")

    def test_nor_another_client_of_this_relay_unless_its_address_is_allowed(self):
        live = Address("10.9.9.9", 50000)
        judge = policy(self.RULES, ("10.9.9.9",), live)
        assert not judge.allows_host("10.9.9.9")
        assert not judge.allows(live)
        assert not judge.allows_connection(live)
        judge = policy(self.RULES, ("10.9.9.9", "10.1.2.3"), Address("10.1.2.3", 50000))
        assert judge.allows(Address("10.1.2.3", 50000))


@pytest.mark.parametrize("host", ["10.0.0.1", "100.64.0.1", "172.16.0.1", "192.168.0.1", "fd00::1"])
def test_opened_private_networks_are_peers(host):
    assert policy(PolicyRules(open_private=True)).allows(Address(host, 5000))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "169.254.169.254", "224.0.0.1", "::1", "fe80::1", "ff02::1"]
)
def test_opening_private_networks_opens_nothing_else(host):
    assert not policy(PolicyRules(open_private=True)).allows_host(host)


class TestOwnAddresses:
    OWN = ("10.9.9.9", PUBLIC)
    LIVE = Address("10.9.9.9", 50000)

    def test_two_relayed_clients_meet_although_the_network_is_private(self):
        judge = policy(PolicyRules(), self.OWN, self.LIVE)
        assert judge.allows_host("10.9.9.9")
        assert judge.allows(self.LIVE)

    @pytest.mark.parametrize("port", [22, 3478, 6379, 9641, 8080, 50001])
    def test_every_other_own_port_is_refused(self, port):
        judge = policy(PolicyRules(), self.OWN, self.LIVE)
        assert not judge.allows(Address("10.9.9.9", port))
        assert not judge.allows(Address(PUBLIC, port))

    def test_opening_private_networks_does_not_open_this_machine(self):
        judge = policy(PolicyRules(open_private=True), self.OWN, self.LIVE)
        assert not judge.allows(Address("10.9.9.9", 22))
        assert judge.allows(Address("10.9.9.8", 22))

    def test_the_operator_may_open_this_machine_but_never_our_own_services(self):
        rules = PolicyRules(allow=(ip_network("10.9.9.9/32"),), reserved_ports=frozenset({3478}))
        judge = policy(rules, self.OWN)
        assert judge.allows(Address("10.9.9.9", 5000))
        assert not judge.allows(Address("10.9.9.9", 3478))

    def test_addresses_that_come_later_are_own_from_then_on(self):
        judge = policy(PolicyRules())
        assert judge.allows(Address(PUBLIC, 22))
        judge.own_addresses = frozenset({PUBLIC})
        assert not judge.allows(Address(PUBLIC, 22))


class TestOneToOneNat:
    RULES = PolicyRules(external=((PUBLIC, "10.9.9.9"),))
    LIVE = Address("10.9.9.9", 50000)

    def test_our_public_address_is_an_own_address(self):
        judge = policy(self.RULES, ("10.9.9.9",), self.LIVE)
        assert judge.allows(Address(PUBLIC, 50000))
        assert not judge.allows(Address(PUBLIC, 3478))

    def test_packets_between_two_of_our_relays_stay_inside(self):
        judge = policy(self.RULES, ("10.9.9.9",), self.LIVE)
        assert judge.to_wire(Address(PUBLIC, 50000)) == self.LIVE
        assert judge.to_client(self.LIVE) == Address(PUBLIC, 50000)
        assert judge.to_client(Address("10.9.9.9", 1)) == Address("10.9.9.9", 1)
        assert judge.to_wire(Address("9.9.9.9", 7)) == Address("9.9.9.9", 7)
