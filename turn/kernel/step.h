/* SPDX-License-Identifier: Apache-2.0
 *
 * What is to become of a packet: the part that knows no address family.
 */
#ifndef ICEBROKER_STEP_H
#define ICEBROKER_STEP_H

#include "maps.h"

INLINE int is_listening(__be16 port)
{
    __u32 number = ntohs(port), index = number >> 6;
    __u64 *word = lookup(&ports, &index);
    return word && (*word >> (number & 63) & 1);
}

/* Whether a packet has come in where its sender would be reached, and is for this machine. */
INLINE int came_from(context *ctx, __u16 place)
{
    __u32 index = place & ~LIMITED;
    struct hop *behind = lookup(&hops, &index);
    return behind && behind->device == device_of(ctx) && is_for_us(ctx, behind);
}

/* Whether packets go to this machine itself. */
INLINE int is_local(__u32 index)
{
    struct hop *ahead = lookup(&hops, &index);
    return ahead && ahead->road == LOCAL;
}

/* Where a packet goes, or 0: there is no way there for one so long. */
INLINE struct hop *next_hop(const context *ctx, __u32 index, __u32 ip_length)
{
    struct hop *ahead = lookup(&hops, &index);
    if (!ahead || !ahead->device || ip_length > ahead->mtu)
        return 0;
    /* Up the stack of this machine with a source address that is its own: only lo may. */
    return ahead->road == LOCAL && ahead->device != device_of(ctx) ? 0 : ahead;
}

enum { TAKEN, EMPTY, BUSY };
#define MOST_LIMITS (sizeof ((struct rest4 *)0)->buckets / sizeof(__u32))

/* Take a payload's bytes from the buckets of a way: TAKEN, or one is EMPTY, or BUSY. */
static __attribute__((noinline)) int charge(const __u32 *indices, __u64 payload);

/* A payload out of ChannelData (RFC 8656 §12.4); 0: it is none, or is not plain (padded, empty).
 * Gives the channel number. */
INLINE __be16 unwrap_channel(const __be16 *header, __u32 udp_length, struct step *step)
{
    step->payload = ntohs(header[1]);
    step->taken_front = CHANNEL;
    step->sum = GONE16(header[0]) + GONE16(header[1]);
    if ((ntohs(header[0]) & 0xc000) != 0x4000 || !step->payload ||
        step->payload + UDP + CHANNEL != udp_length)
        return 0;
    return header[0];
}

INLINE void wrap_in_channel(__be16 channel, struct step *step)
{
    step->put_front = CHANNEL;
    step->sum += channel + htons(step->payload);
}

INLINE void wrap_in_indication(const __be32 *header, const __u32 size, struct step *step)
{
    step->put_front = size;
    step->put_tail = -step->payload & (PAD - 1);
    step->sum += htons(step->payload) + htons(size - STUN + step->payload + step->put_tail);
#pragma unroll
    for (__u32 i = 0; i < size / 4; i++)
        step->sum += header[i];
}

/* The head of a Send or Data indication of the plain shape, as far as both families have it. */
struct stun {
    __be16 type, length;
    __be32 cookie;
    __be32 transaction[3];
    __be16 attribute, size;
    __u8 zero, family;
    __be16 port;
};

struct data {
    __be16 attribute, length;
};

/* Whether it is a Send indication whose DATA follows the peer's address. What follows the DATA is
 * for the caller to judge. */
INLINE int is_plain_send(const struct stun *head, const struct data *data, __u32 family,
                         __u32 udp_length, struct step *step)
{
    __u32 size = step->taken_front - STUN - 2 * PAD;
    step->payload = ntohs(data->length);
    step->taken_tail = -step->payload & (PAD - 1);
    return head->type == htons(NAMED) && head->cookie == htonl(COOKIE) &&
           head->attribute == htons(PEER_ADDRESS) && head->size == htons(size) && !head->zero &&
           head->family == family && data->attribute == htons(DATA) && step->payload &&
           ntohs(head->length) + UDP + STUN == udp_length &&
           step->taken_front + step->payload + step->taken_tail + UDP <= udp_length;
}

/* Zero, but the kernel's verifier does not know that: by what it sees it is below 2^16.
 *
 * any: a number that it does not know. */
INLINE __u32 veil(__u16 any)
{
    __u32 same = any;
    OPAQUE(same);
    return same ^ any;
}

/* The same number, of which the verifier forgets what it is. It would follow each kind of packet to
 * the end of the program, and so follows one: that is most of what loading takes. */
INLINE __u32 veiled(__u16 number, __u32 zero)
{
    __u32 same = number ^ zero;
    OPAQUE(same); /* here, and not where it is used */
    return same;
}

INLINE void veil_step(struct step *step, __u32 zero)
{
    step->payload = veiled(step->payload, zero);
    step->taken_front = veiled(step->taken_front, zero);
    step->taken_tail = veiled(step->taken_tail, zero);
    step->put_front = veiled(step->put_front, zero);
    step->put_tail = veiled(step->put_tail, zero);
}

INLINE __u32 length_after(const struct step *step)
{
    return UDP + step->payload + step->put_front + step->put_tail;
}

#endif
