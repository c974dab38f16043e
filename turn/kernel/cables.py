"""The ends of a veth whose far end may receive at once what would be sent by them.

A packet that is sent by a veth first waits in a queue of the processor's, which costs as much as
all else that relaying it takes. That is left out (``bpf_redirect_peer``) where nobody would miss
it: the far end is in another namespace, nothing queues packets here, no filter sees them leave.
"""

import errno
from collections.abc import Iterable

from turn.kernel.bpf import TCX_EGRESS, BpfError, programs_at
from turn.kernel.filters import leaving
from turn.kernel.rtnetlink import Link, Netlink


def across(netlink: Netlink, links: Iterable[Link]) -> set[int]:
    """The devices of which that is so, now."""
    return {
        link.device
        for link in links
        if link.is_up and link.is_cable and link.queue == "noqueue" and is_unseen(netlink, link)
    }


def is_unseen(netlink: Netlink, link: Link) -> bool:
    """Whether no filter sees what leaves by a device, as far as we may know."""
    try:
        return not leaving(netlink, link.device) and not programs_at(link.device, TCX_EGRESS)
    except BpfError as error:
        return error.errno == errno.EINVAL  # before Linux 6.6 there is no tcx
    except OSError:  # it is gone
        return False
