/* SPDX-License-Identifier: Apache-2.0
 *
 * What is a plain packet, and how its IP header leaves: for both families, wherever the program
 * stands. `tc.h` or `xdp.h` comes first, and says what a packet is there.
 */
#ifndef ICEBROKER_PACKET_H
#define ICEBROKER_PACKET_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "step.h"

#define FRAGMENT 0x3fff  /* more fragments, or an offset */

struct head4 {
    struct iphdr ip;
    struct udphdr udp;
};

struct head6 {
    struct ipv6hdr ip;
    struct udphdr udp;
};

INLINE int is_plain4(const context *ctx, const struct head4 *head)
{
    __u32 length = ntohs(head->udp.len);
    return *(__u8 *)head == 0x45 && head->ip.protocol == IPPROTO_UDP && head->ip.ttl > 1 &&
           !(head->ip.frag_off & htons(FRAGMENT)) &&
           ntohs(head->ip.tot_len) == sizeof head->ip + length &&
           length_of(ctx) == ETHERNET + sizeof head->ip + length;
}

INLINE int is_plain6(const context *ctx, const struct head6 *head)
{
    __u32 length = ntohs(head->udp.len);
    return *(__u8 *)head >> 4 == 6 && head->ip.nexthdr == IPPROTO_UDP && head->ip.hop_limit > 1 &&
           head->udp.check && ntohs(head->ip.payload_len) == length &&
           length_of(ctx) == ETHERNET + sizeof head->ip + length;
}

/* The IP header as it leaves (RFC 8656 §14: a new packet of this server's, one hop older). */
INLINE void readdress4(const struct head4 *old, struct head4 *new, const struct way4 *way,
                       const struct step *step)
{
    const __u32 *before = (void *)old, *after = (void *)new;
    __u64 sum = 0;
    *new = *old;
    new->ip.saddr = way->new_source[0];
    new->ip.daddr = way->new_destination[0];
    new->ip.tot_len = htons(sizeof new->ip + length_after(step));
    new->ip.ttl = old->ip.ttl - 1;
    new->ip.frag_off = 0;
    new->ip.id = random();
    new->ip.check = 0;
#pragma unroll
    for (int i = 0; i < 5; i++) /* the old checksum is among the words that go (RFC 1624) */
        sum += (__u64)GONE(before[i]) + after[i];
    new->ip.check = ~fold(sum);
}

INLINE void readdress6(const struct head6 *old, struct head6 *new, const struct way6 *way,
                       const struct step *step)
{
    *new = *old;
    __builtin_memcpy(&new->ip.saddr, way->new_source, sizeof way->new_source);
    __builtin_memcpy(&new->ip.daddr, way->new_destination, sizeof way->new_destination);
    new->ip.payload_len = htons(length_after(step));
    new->ip.hop_limit = old->ip.hop_limit - 1;
}

static __attribute__((noinline)) __u64 fingerprint_of(context *ctx, __u32 start, __u32 length);

#define FAMILY 4
#define STUN_FAMILY 1
#include "family.h"
#undef FAMILY
#undef STUN_FAMILY

#define FAMILY 6
#define STUN_FAMILY 2
#include "family.h"

/* protocol: of the frame, as Ethernet has it. */
INLINE int carry(context *ctx, __be16 protocol)
{
    if (protocol == htons(ETH_P_IP))
        return relay4(ctx);
    if (protocol == htons(ETH_P_IPV6))
        return relay6(ctx);
    return UP;
}

#endif
