"""What the tests of the kernel plane stand on: three hosts, made once a module."""

import pytest

from tests.turn.kernel.hosts import network


@pytest.fixture(scope="module", name="need_kernel")
def need_kernel_fixture(request):
    """See that namespaces and BPF can be had."""
    from tests.conftest import need, need_root  # noqa: PLC0415 - pytest loads that file its own way

    need_root("network namespaces and BPF")
    for program in ("ip", "ethtool"):
        need(program)


@pytest.fixture(scope="module", name="three")
def three_hosts(need_kernel):
    """A client, a server and a peer."""
    with network() as found:
        yield found
