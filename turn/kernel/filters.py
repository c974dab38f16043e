"""Attaching by cls_bpf, a filter of tc: what there was before tcx (Linux 6.6).

A filter stays when its process has gone, so one that is found is replaced, and one that is left
over is taken away.
"""

import errno
import struct
from contextlib import suppress

from turn.kernel.rtnetlink import (
    CREATE,
    DEL_FILTER,
    EXCLUSIVE,
    GET_FILTER,
    NEW_FILTER,
    NEW_QDISC,
    Netlink,
    attribute,
)

# tcmsg of <linux/rtnetlink.h>; handles of <linux/pkt_sched.h>; TCA_, TCA_BPF_.
MESSAGE = struct.Struct("=B3xiIII")
REPLACE = 0x100
INGRESS_QDISC, INGRESS_HANDLE, INGRESS, EGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2, 0xFFFFFFF3
KIND, OPTIONS = 1, 2
BPF_FD, BPF_NAME, BPF_FLAGS = 6, 7, 8
DIRECT_ACTION = struct.pack("=I", 1)
ALL_PROTOCOLS = 0x0300
"""ETH_P_ALL, in network order."""
PLACE = 0x4942
"""Our place among the filters of a device (tc's preference), so that we find ours again."""
HANDLE = 1
NUMBER = struct.Struct("=I")
NOT_THERE = {errno.ENOENT, errno.ENODEV, errno.EINVAL}


def attach(netlink: Netlink, program: int, device: int) -> None:
    """Run a program at a device's ingress, in the place of an earlier one of ours.

    :raises OSError: the kernel refused.
    """
    with suppress(FileExistsError):
        qdisc = MESSAGE.pack(0, device, INGRESS_HANDLE, INGRESS_QDISC, 0)
        netlink.tell(NEW_QDISC, CREATE | EXCLUSIVE, qdisc + attribute(KIND, b"clsact\0"))
    options = (
        attribute(BPF_FD, NUMBER.pack(program))
        + attribute(BPF_NAME, b"icebroker\0")
        + attribute(BPF_FLAGS, DIRECT_ACTION)
    )
    body = _ours(device) + attribute(KIND, b"bpf\0") + attribute(OPTIONS, options)
    netlink.tell(NEW_FILTER, CREATE | REPLACE, body)


def detach(netlink: Netlink, device: int) -> None:
    """Take ours away, if it is there. The queue stays, as others may have their filters in it."""
    try:
        netlink.tell(DEL_FILTER, 0, _ours(device) + attribute(KIND, b"bpf\0"))
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise


def leaving(netlink: Netlink, device: int) -> int:
    """How many filters see what leaves by a device. :raises OSError: it is gone."""
    return len(netlink.dump(GET_FILTER, MESSAGE.pack(0, device, 0, EGRESS, 0)))


def _ours(device: int) -> bytes:
    return MESSAGE.pack(0, device, HANDLE, INGRESS, PLACE << 16 | ALL_PROTOCOLS)
