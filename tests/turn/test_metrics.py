"""The metrics page: the names of the design, the values of the counters, never a new series."""

import itertools

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.turn.world import OTHER_PEER, PEER, SECRET, World
from turn.allocation.allocator import CloseReason
from turn.allocation.model import Limits, TenantLimits
from turn.auth.ephemeral import password_of
from turn.codec import registry
from turn.metrics import External, Gauges, ProcessCollector, TurnCollector, exposition
from turn.routes import Carried
from turn.stats import DropReason
from turn.tenants import allocations_of_tenants, bytes_of_tenants, figures_of_tenants

NAMES = {
    "icebroker_turn_allocations": ("gauge", set()),
    "icebroker_turn_relay_ports_in_use": ("gauge", set()),
    "icebroker_turn_relay_ports": ("gauge", set()),
    "icebroker_turn_relay_ports_free": ("gauge", set()),
    "icebroker_tls_certificate_not_after_timestamp_seconds": ("gauge", set()),
    "icebroker_turn_external_address_confirmed_timestamp_seconds": ("gauge", set()),
    "icebroker_turn_external_addresses_port_mapped": ("gauge", set()),
    "icebroker_turn_allocations_created": ("counter", {"transport", "family"}),
    "icebroker_turn_allocations_closed": ("counter", {"reason"}),
    "icebroker_turn_dropped_packets": ("counter", {"reason"}),
    "icebroker_turn_quota_rejections": ("counter", {"quota"}),
    "icebroker_turn_auth": ("counter", {"result"}),
    "icebroker_turn_user_decisions": ("counter", {"result"}),
    "icebroker_turn_webhooks": ("counter", {"result"}),
    "icebroker_stun_requests": ("counter", {"method", "transport"}),
    "icebroker_stun_responses": ("counter", {"method", "code"}),
    "icebroker_turn_relay_packets": ("counter", {"direction", "plane"}),
    "icebroker_turn_relay_bytes": ("counter", {"direction", "plane"}),
    "icebroker_turn_tenant_allocations": ("gauge", {"tenant"}),
    "icebroker_turn_tenant_relay_bytes": ("counter", {"tenant", "direction"}),
    "icebroker_build_info": ("gauge", {"version"}),
    "icebroker_draining": ("gauge", set()),
    "icebroker_config_reloaded": ("gauge", set()),
    "process_cpu_seconds": ("counter", set()),
    "process_max_fds": ("gauge", set()),
    "process_open_fds": ("gauge", set()),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
    "process_virtual_memory_bytes": ("gauge", set()),
}


class Page:
    """A relay without sockets, and what its page says."""

    def __init__(
        self,
        world,
        *,
        expiry=1_900_000_000.0,
        draining=False,
        external: External | None = External(1_800_000_000.5, 2),  # noqa: B008 - immutable
    ):
        self.world = world
        self.gauges = Gauges(
            lambda: len(world.engine.table),
            lambda: 7,
            lambda: (16, 9),
            lambda: expiry,
            lambda: Carried(11, 1100, 22, 2200),
            tenants=lambda: figures_of_tenants(
                ["shop"],
                allocations_of_tenants(world.engine.table),
                bytes_of_tenants(world.engine.table, world.routes, world.stats),
            ),
            external=lambda: external,
        )
        self.collectors = [
            ProcessCollector("1.2.3", lambda: draining, lambda: False),
            TurnCollector(world.stats, world.routes, self.gauges),
        ]

    def families(self):
        text = exposition(self.collectors).decode()
        return {family.name: family for family in text_string_to_metric_families(text)}

    def samples(self):
        """Every value by name and labels."""
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families().values()
            for sample in family.samples
        }

    def value(self, name, **labels):
        return self.samples()["icebroker_" + name, *sorted(labels.items())]


@pytest.fixture
def page(world):
    return Page(world)


def talk(world):
    """One of everything that is counted."""
    client = world.client()
    client.allocate()
    client.bind(0x4000, PEER)
    client.permit(OTHER_PEER)
    client.channel_data(0x4000, b"12345")
    client.send_indication(OTHER_PEER, b"123")
    client.relay.receive(b"1234567", PEER)
    client.relay.receive(b"x", PEER._replace(host="1.1.1.1"))
    world.client(password="wrong").allocate()
    world.client().once(1)
    return client


def test_the_page_has_the_names_types_and_labels_of_the_design(page):
    talk(page.world)
    families = page.families()
    assert families.keys() == NAMES.keys()
    for name, (kind, labels) in NAMES.items():
        family = families[name]
        assert family.type == kind, name
        assert family.documentation, name
        assert {frozenset(sample.labels) for sample in family.samples} == {frozenset(labels)}, name


def test_the_values_are_those_of_the_counters(page):
    client = talk(page.world)
    stats = page.world.stats
    assert page.value("turn_allocations") == 1
    assert page.value("turn_relay_ports_in_use") == 7
    assert page.value("turn_relay_ports") == 16
    assert page.value("turn_relay_ports_free") == 9
    assert page.value("tls_certificate_not_after_timestamp_seconds") == 1_900_000_000
    assert page.value("turn_external_address_confirmed_timestamp_seconds") == 1_800_000_000.5
    assert page.value("turn_external_addresses_port_mapped") == 2
    assert page.value("turn_allocations_created_total", transport="udp", family="ipv4") == 1
    assert page.value("turn_auth_total", result="ok") == stats.auth["ok"] == 3
    assert page.value("turn_auth_total", result="unauthorized") == stats.auth["unauthorized"] == 3
    assert page.value("stun_requests_total", method="allocate", transport="udp") == 4
    assert page.value("stun_responses_total", method="allocate", code="200") == 1
    assert page.value("stun_responses_total", method="allocate", code="401") == 3
    assert page.value("stun_responses_total", method="binding", code="200") == 1
    assert page.value("turn_dropped_packets_total", reason="no_permission") == 1
    for family, labels, counter in (
        ("turn_dropped_packets", "reason", stats.drops),
        ("turn_auth", "result", stats.auth),
        ("turn_allocations_closed", "reason", stats.allocations_closed),
    ):
        exported = {
            sample.labels[labels]: sample.value
            for sample in page.families()["icebroker_" + family].samples
        }
        assert {str(key): value for key, value in counter.items() if value} == {
            key: value for key, value in exported.items() if value
        }
    assert client


def test_what_the_kernel_carried_has_series_of_its_own(page):
    for direction, packets, octets in (("to_peer", 11, 1100), ("to_client", 22, 2200)):
        labels = {"direction": direction, "plane": "kernel"}
        assert page.value("turn_relay_packets_total", **labels) == packets
        assert page.value("turn_relay_bytes_total", **labels) == octets


def test_relayed_packets_are_those_of_live_and_of_ended_routes(page):
    def relayed():
        return [
            page.value(f"turn_relay_{what}_total", direction=direction, plane="userspace")
            for direction, what in itertools.product(("to_peer", "to_client"), ("packets", "bytes"))
        ]

    client = talk(page.world)
    assert relayed() == [2, 8, 1, 7]
    client.refresh()
    page.world.sleep(3601)
    assert page.value("turn_allocations") == 0
    assert relayed() == [2, 8, 1, 7]
    assert page.value("turn_allocations_closed_total", reason="expired") == 1


def test_every_reason_there_is_has_its_series_before_anything_happens(page):
    """An alert on a rate needs the zero that it grows from; an unlisted reason would be lost."""
    for reason in DropReason:
        assert page.value("turn_dropped_packets_total", reason=reason) == 0
    for end in CloseReason:
        assert page.value("turn_allocations_closed_total", reason=end) == 0
    for quota in ("user", "address", "total", "ports", "permissions", "channels"):
        assert page.value("turn_quota_rejections_total", quota=quota) == 0
    for transport, family in itertools.product(("udp", "tcp", "tls"), ("ipv4", "ipv6")):
        labels = {"transport": transport, "family": family}
        assert page.value("turn_allocations_created_total", **labels) == 0
    for result in ("ok", "unauthorized", "stale_nonce", "bad_request"):
        assert page.value("turn_auth_total", result=result) == 0


def test_no_certificate_no_expiry(world):
    families = Page(world, expiry=None).families()
    assert "icebroker_tls_certificate_not_after_timestamp_seconds" not in families


def test_no_stun_server_nothing_of_it(world):
    assert not [name for name in Page(world, external=None).families() if "external" in name]


@pytest.mark.parametrize("draining", [False, True])
def test_the_process_says_its_version_and_whether_it_drains(world, draining):
    page = Page(world, draining=draining)
    assert page.value("draining") == draining
    assert page.value("build_info", version="1.2.3") == 1


def test_users_peers_and_addresses_make_no_series():
    """Memory of the monitoring: ten thousand users look like one."""
    world = World()
    page = Page(world)
    talk(world)

    def come(numbers):
        for number in numbers:
            name = f"1900000000:user{number}"
            client = world.client(name, password_of(SECRET, name), f"192.0.2.{number % 256}")
            client.allocate()
            client.permit(PEER._replace(host=f"8.8.{number % 256}.{number // 256}"))

    come(range(10))
    before = page.samples().keys()
    come(range(10, 300))
    assert page.samples().keys() == before
    assert len(before) < 100


def test_what_a_tenants_users_have_and_had_is_told_of_those_that_there_are():
    world = World(Limits(tenants={"shop": TenantLimits(), "gone": TenantLimits()}))
    page = Page(world)
    clients = [
        world.client(*world.signed("alice", "shop")),
        world.client("shop/carol", "pw3"),
        world.client(*world.signed("alice", "gone")),
        world.client(),
    ]
    for client in clients:
        client.allocate()
        client.permit(PEER)
        client.send_indication(PEER, bytes(100))
        client.relay.receive(bytes(10), PEER)
    sent = "turn_tenant_relay_bytes_total", {"tenant": "shop", "direction": "to_peer"}
    assert page.value("turn_tenant_allocations", tenant="shop") == 2
    assert page.value(sent[0], **sent[1]) == 200
    clients[0].refresh((registry.LIFETIME, 0))
    clients[1].send_indication(PEER, bytes(7))
    assert page.value("turn_tenant_allocations", tenant="shop") == 1
    assert page.value(sent[0], **sent[1]) == 207
    assert page.value(sent[0], tenant="shop", direction="to_client") == 20
    labels = {dict(labels).get("tenant") for _, *labels in page.samples()}
    assert labels == {None, "shop"}, "no other name becomes a label"
