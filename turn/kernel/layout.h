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

#define LAYOUT 9

/* Bytes of a Data or Send indication of the plain shape before its payload (RFC 8656 §11): header,
 * XOR-PEER-ADDRESS, head of DATA. */
#define INDICATION4 36
#define INDICATION6 48

/* One direction of a route is a *way*: found by a packet's own addresses, it says the new ones, and
 * how long they hold. A packet of a relay with thousands of routes finds nothing of its own in the
 * processor's caches, and waits for memory: so all that ChannelData needs, and counts, is side by
 * side, one cache line in IPv4, two in IPv6, and lies in as few pages as can be. What only others
 * need is the *rest*, in an array of its own, at the same place.
 *
 * A place is taken while the word of `source_port` is not 0: it is written last, and cleared first. */
struct way4 {
    __be32 source[1], destination[1];
    __be16 source_port, destination_port;
    __be16 channel; /* that the packet carries; 0: a peer's packet; NAMED: a Send indication */
    __be16 wrap;    /* the channel to prepend (peer to client); 0: none, or a Data indication */
    __be32 new_source[1], new_destination[1];
    __be16 new_source_port, new_destination_port;
    __u16 behind;  /* index of the hop where the packet must come from, and LIMITED */
    __u16 ahead;   /* index of the hop where it goes to */
    __u64 expires; /* nanoseconds of CLOCK_MONOTONIC; 0: closed */
    __u64 packets; /* that went by tc */
    __u64 bytes;   /* of payload */
    __u64 frames;  /* packets that went by XDP; they are not among the others */
};

struct rest4 {
    __be32 header[INDICATION4 / 4]; /* to prepend where there is no channel, both lengths 0; of a
                                       way of Send indications: the peer that they name, its port */
    __u32 buckets[5]; /* where it is LIMITED: indices of those to pass; 0: no more */
    __u64 spoiled;    /* packets that were lost half way: a helper of the kernel's failed */
};

struct way6 {
    __be32 source[4], destination[4];
    __be16 source_port, destination_port;
    __be16 channel;
    __be16 wrap;
    __be32 new_source[4], new_destination[4];
    __be16 new_source_port, new_destination_port;
    __u16 behind;
    __u16 ahead;
    __u64 expires;
    __u64 packets;
    __u64 bytes;
    __u64 frames;
    __u64 zero[2];
};

struct rest6 {
    __be32 header[INDICATION6 / 4];
    __u32 buckets[5];
    __u32 zero;
    __u64 spoiled;
};

#define NAMED 0x0016 /* no channel has this number: it is the type of Send indications */
#define LIMITED 0x8000

/* A way is at one of two places that follow from its key, or near one of them, in the same row: so
 * it is found without a list of where things are, which would be another wait for memory. Most are at
 * the first. No more places are in use than need be: where a page is, is the longest wait of all, but
 * few pages the processor knows. */
#define ROW 8
#define MOST_WAYS4 131072
#define MOST_WAYS6 65536
#define LEAST_PLACES 4096
#define FIRST_PLACE 30 /* bits of the hash below the place's number */
#define SECOND_PLACE 47
#define MIX 0x9E3779B97F4A7C15ull

/* What is hashed. The second part is there for Send indications only, else it is not looked at. */
struct key4 {
    __be32 source[1], destination[1];
    __be16 source_port, destination_port;
    __be16 channel;
    __be16 zero;
    __be32 peer[1];
    __be16 peer_port;
    __be16 none;
};

struct key6 {
    __be32 source[4], destination[4];
    __be16 source_port, destination_port;
    __be16 channel;
    __be16 zero;
    __be32 peer[4];
    __be16 peer_port;
    __be16 none[3];
};

/* Secret, and drawn when the maps are made: so nobody can choose addresses that share their places. */
struct seed {
    __u32 words[sizeof(struct key6) / 4];
    __u32 places4, places6; /* that are in use; a power of two */
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

/* A token bucket over bytes that holds a second's worth; the kernel and user space take from it. It
 * is full again at the later of two times; each is written by one of the two. All times are
 * sixteenths of a nanosecond of CLOCK_MONOTONIC: a byte may cost a fraction of a nanosecond. */
struct bucket {
    __u64 full;
    __u64 lent;  /* the same, as user space has left it */
    __u64 price; /* of a byte, 2^PRICE_SHIFT times */
    __u64 refused; /* packets that found too little in it here */
};

#define MOST_BUCKETS 262144
#define PRICE_SHIFT 12
#define SMALLEST 64 /* bytes that a packet takes of a bucket at least */
#define TICKS 16 /* a nanosecond */
#define MOST_HOPS 16384
#define MOST_DEVICES 1024
#define PORT_WORDS 1024 /* 64 ports each */

#endif
