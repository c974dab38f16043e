/* SPDX-License-Identifier: Apache-2.0
 *
 * The maps, and what a packet's change is made of. Every program has all of them, and shares them.
 */
#ifndef ICEBROKER_MAPS_H
#define ICEBROKER_MAPS_H

#include "helpers.h"
#include "layout.h"

enum {
    ETHERNET = 14,
    UDP = 8,
    CHANNEL = 4,
    STUN = 20,
    FINGERPRINT_BYTES = 8,
    PAD = 4,              /* DATA is padded to a multiple of this */
    SHIFTED = 2048,       /* longest payload that is moved by copying */
    PEER_ADDRESS = 0x0012, /* RFC 8656 §18: XOR-PEER-ADDRESS, DATA */
    DATA = 0x0013,
    COOKIE = 0x2112A442, /* RFC 8489 §5 */
};

MAP(ways4, ARRAY, __u32, struct way4, MOST_WAYS4, BPF_F_MMAPABLE);
MAP(ways6, ARRAY, __u32, struct way6, MOST_WAYS6, BPF_F_MMAPABLE);
MAP(rests4, ARRAY, __u32, struct rest4, MOST_WAYS4, BPF_F_MMAPABLE);
MAP(rests6, ARRAY, __u32, struct rest6, MOST_WAYS6, BPF_F_MMAPABLE);
MAP(seeds, ARRAY, __u32, struct seed, 1, 0);
MAP(hops, ARRAY, __u32, struct hop, MOST_HOPS, 0);
MAP(buckets, ARRAY, __u32, struct bucket, MOST_BUCKETS, BPF_F_MMAPABLE);
/* A bit a port that we listen on: there a packet's payload begins with a channel number, or is STUN. */
MAP(ports, ARRAY, __u32, __u64, PORT_WORDS, 0);

/* By index, those that a frame can be handed to without a socket buffer. */
MAP(devices, DEVMAP_HASH, __u32, __u32, MOST_DEVICES, 0);

struct scratch {
    __be32 words[SHIFTED / 4];
};
MAP(scratch, PERCPU_ARRAY, __u32, struct scratch, 1, 0);

/* What is to become of a packet that has a way: what stands around its payload is taken away, and
 * something else is put there. */
struct step {
    __u32 payload;                 /* bytes */
    __u32 taken_front, taken_tail; /* bytes of header before it, of padding behind it */
    __u32 put_front, put_tail;
    __u64 sum; /* of both, as the UDP checksum sees what goes and what comes */
};

#endif
