/* SPDX-License-Identifier: Apache-2.0
 *
 * What the control plane writes and the program reads: the layout of the maps. `layout.py` says the
 * same in Python, and a test holds the two together. Numbers named `__be` are in network order, the
 * rest in the machine's. Nothing here has a hole that a compiler could fill. Who changes anything
 * here gives it another LAYOUT: pinned maps outlive the process that made them.
 */
#ifndef ICEBROKER_LAYOUT_H
#define ICEBROKER_LAYOUT_H

#include <linux/types.h>

#define LAYOUT 5

/* Bytes of a Data or Send indication of the plain shape before its payload (RFC 8656 §11): header,
 * XOR-PEER-ADDRESS, head of DATA. */
#define INDICATION4 36
#define INDICATION6 48

/* One direction of a route is a *way*: found by a packet's own addresses, it says the new ones.
 * The channel is the number that the packet carries (client to peer), or 0 (peer to client). */
struct key4 {
    __be32 source[1], destination[1];
    __be16 source_port, destination_port;
    __be16 channel;
    __be16 zero;
};

/* A Send indication's way is found by the peer that it names too. */
struct name4 {
    __be32 source[1], destination[1];
    __be16 source_port, destination_port;
    __be32 peer[1];
    __be16 peer_port;
    __be16 zero;
};

struct way4 {
    __be32 source[1], destination[1];
    __be16 source_port, destination_port;
    __be16 channel; /* to prepend (peer to client); 0: none, or a Data indication */
    __u16 zero;
    __u32 meter;  /* index of the way's meter */
    __u16 behind; /* index of the hop where the packet must come from */
    __u16 ahead;  /* index of the hop where it goes to */
    __be32 header[INDICATION4 / 4]; /* to prepend where there is no channel, both lengths 0 */
};

struct key6 {
    __be32 source[4], destination[4];
    __be16 source_port, destination_port;
    __be16 channel;
    __be16 zero;
};

struct name6 {
    __be32 source[4], destination[4];
    __be16 source_port, destination_port;
    __be32 peer[4];
    __be16 peer_port;
    __be16 zero;
};

struct way6 {
    __be32 source[4], destination[4];
    __be16 source_port, destination_port;
    __be16 channel;
    __u16 zero;
    __u32 meter;
    __u16 behind;
    __u16 ahead;
    __be32 header[INDICATION6 / 4];
};

/* A next hop: the device, and the head of the frames that it takes. */
struct hop {
    __u32 device; /* its index; 0: not known, user space carries */
    __u32 mtu;    /* bytes of the longest IP packet */
    __u8 head[12]; /* destination MAC, source MAC */
    __u32 road;   /* how it gets there */
};

enum {
    BY_DEVICE, /* sent */
    LOCAL,     /* this machine itself, by the loopback device */
    ACROSS,    /* received at once by the far end of a veth, in another namespace */
};

/* How long a way may be used, and how much it was; a cache line, as it is written a packet. */
struct meter {
    __u64 expires; /* nanoseconds of CLOCK_MONOTONIC; 0: closed */
    __u64 packets; /* that went by tc */
    __u64 bytes; /* of payload */
    __u64 spoiled; /* packets that were lost half way: a helper of the kernel's failed */
    __u64 frames;  /* packets that went by XDP; they are not among the others */
    __u32 buckets[4]; /* indices of those that a packet has to pass; 0: no more */
    __u64 spare;
};

/* A token bucket over bytes that holds a second's worth; the kernel and user space take from it. It
 * is full again at the later of two times; each is written by one of the two. All times are
 * sixteenths of a nanosecond of CLOCK_MONOTONIC: a byte may cost a fraction of a nanosecond. */
struct bucket {
    __u64 full;
    __u64 lent;  /* the same, as user space has left it */
    __u64 price; /* of a byte, 2^PRICE_SHIFT times */
    __u64 refused; /* packets that found too little in it here */
};

#define MOST_WAYS 131072
#define MOST_BUCKETS 262144
#define PRICE_SHIFT 12
#define TICKS 16 /* a nanosecond */
#define MOST_HOPS 16384
#define MOST_DEVICES 1024
#define PORT_WORDS 1024 /* 64 ports each */

#endif
