/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel plane's program: carries ChannelData <-> peer UDP (RFC 8656 §12) at a device's ingress,
 * for the routes that the control plane has written, and passes everything else up to user space.
 *
 * The one rule: until the first byte of a packet has changed, any doubt passes it up unchanged.
 * What user space would refuse has no way here, or a closed one, and is refused there, by name.
 *
 * No helper in here is GPL-only, and the context is UAPI: no BTF, no headers of the running kernel.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include "layout.h"

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline
#define UP TC_ACT_UNSPEC /* to whoever is next, in the end to user space */

#define htons(number) __builtin_bswap16(number)
#define ntohs(number) __builtin_bswap16(number)

enum {
    ETHERNET = 14,
    UDP = 8,
    CHANNEL = 4,
    SHIFTED = 2048, /* longest payload that is moved by copying */
    FRAGMENT = 0x3fff, /* more fragments, or an offset */
    WHOLE = 1,
    PSEUDO = 2,
};

static void *(*const lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*const coarse_now)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static __u32 (*const random)(void) = (void *)BPF_FUNC_get_prandom_u32;
static long (*const pull)(struct __sk_buff *, __u32) = (void *)BPF_FUNC_skb_pull_data;
static long (*const load)(const struct __sk_buff *, __u32, void *, __u32) =
    (void *)BPF_FUNC_skb_load_bytes;
static long (*const store)(struct __sk_buff *, __u32, const void *, __u32, __u64) =
    (void *)BPF_FUNC_skb_store_bytes;
static long (*const replace_checksum)(struct __sk_buff *, __u32, __u64, __u64, __u64) =
    (void *)BPF_FUNC_l4_csum_replace;
static long (*const resize_head)(struct __sk_buff *, __s32, __u32, __u64) =
    (void *)BPF_FUNC_skb_adjust_room;
static long (*const resize_tail)(struct __sk_buff *, __u32, __u64) =
    (void *)BPF_FUNC_skb_change_tail;
static long (*const redirect)(__u32, __u64) = (void *)BPF_FUNC_redirect;

/* The loader reads these; no BTF is needed so. */
struct map {
    __u32 type, key_size, value_size, max_entries, flags;
};

#define MAP(name, kind, key, value, entries, how)                                                  \
    struct map name SECTION("maps") = {BPF_MAP_TYPE_##kind, sizeof(key), sizeof(value), entries, how}

MAP(ways4, HASH, struct key4, struct way4, MOST_WAYS, BPF_F_NO_PREALLOC);
MAP(ways6, HASH, struct key6, struct way6, MOST_WAYS, BPF_F_NO_PREALLOC);
MAP(hops, ARRAY, __u32, struct hop, MOST_HOPS, 0);
MAP(meters, ARRAY, __u32, struct meter, MOST_WAYS, BPF_F_MMAPABLE);
/* A bit a port that we listen on: there a packet's payload may begin with a channel number. */
MAP(ports, ARRAY, __u32, __u64, PORT_WORDS, 0);

struct scratch {
    __u8 bytes[SHIFTED];
};
MAP(scratch, PERCPU_ARRAY, __u32, struct scratch, 1, 0);

/* A packet that has a way: what is to become of it. `index` is known when this is compiled. */
struct step {
    __u32 payload; /* bytes */
    __u32 meter;
    __u16 behind, ahead;
    __be16 channel;
    int wraps; /* 1: a channel header is put before the payload; 0: it is taken away */
};

INLINE int is_listening(__be16 port)
{
    __u32 number = ntohs(port), index = number >> 6;
    __u64 *word = lookup(&ports, &index);
    return word && (*word >> (number & 63) & 1);
}

/* The ones' complement sum (RFC 1071) of 16-bit words, out of a sum of longer ones. */
INLINE __u16 fold(__u64 sum)
{
    sum = (sum >> 32) + (__u32)sum;
    sum = (sum >> 32) + (__u32)sum;
    sum = (sum >> 16) + (__u16)sum;
    sum = (sum >> 16) + (__u16)sum;
    sum = (sum >> 16) + (__u16)sum;
    return sum;
}

#define GONE(word) ((__u32) ~(word))          /* for a 32-bit word that is no longer there */
#define GONE16(word) ((__u64)(__u16) ~(word)) /* for a 16-bit one */

/* Where the packet goes, or 0: its time is over, it came from elsewhere, or there is no way there. */
INLINE struct hop *admit(struct __sk_buff *skb, const struct step *step, __u32 ip_length,
                         struct meter **metered)
{
    __u32 index = step->meter;
    struct meter *meter = lookup(&meters, &index);
    if (!meter || meter->expires <= coarse_now())
        return 0;
    index = step->behind;
    struct hop *behind = lookup(&hops, &index);
    if (!behind || behind->device != skb->ifindex)
        return 0;
    index = step->ahead;
    struct hop *ahead = lookup(&hops, &index);
    if (!ahead || !ahead->device || ip_length > ahead->mtu)
        return 0;
    /* Up the stack of this machine with a source address that is its own: only lo may. */
    if (ahead->local && ahead->device != skb->ifindex)
        return 0;
    *metered = meter;
    return ahead;
}

/* Whether the checksum field holds the pseudo header's sum only and a device is to do the rest
 * (CHECKSUM_PARTIAL). No field of the context says so, but this helper leaves the checksum alone
 * only then; else it has changed it, and the caller writes a new one anyway. */
INLINE int is_partial(struct __sk_buff *skb, __u32 offset, __u16 checksum, int *result)
{
    if (replace_checksum(skb, offset, 0, 0x1234, 0))
        return -1;
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    if (data + offset + 2 > end)
        return -1;
    *result = *(__u16 *)(data + offset) == checksum;
    return 0;
}

/* Make or close the gap before the payload by moving the payload: with CHECKSUM_PARTIAL the socket
 * buffer remembers where the UDP header is, and it has to stay there. 0: nothing has changed. */
INLINE int shift_payload(struct __sk_buff *skb, __u32 start, const struct step *step)
{
    __u32 zero = 0, size = step->payload;
    struct scratch *scratch_page = lookup(&scratch, &zero);
    if (!scratch_page || size < 1 || size > SHIFTED)
        return 0;
    __u32 from = step->wraps ? start : start + CHANNEL;
    __u32 to = step->wraps ? start + CHANNEL : start;
    if (load(skb, from, scratch_page->bytes, size))
        return 0;
    if (step->wraps && resize_tail(skb, to + size, 0))
        return 0;
    if (store(skb, to, scratch_page->bytes, size, 0))
        return -1;
    if (!step->wraps && resize_tail(skb, to + size, 0))
        return -1;
    return 1;
}

/* Make room for the new headers, or take room away, and say which checksum belongs there: WHOLE, or
 * that of the PSEUDO header; 0: nothing has changed; -1: the packet is spoiled. */
INLINE int resize(struct __sk_buff *skb, __u32 ip_bytes, __u16 checksum, const struct step *step)
{
    const __u32 at = ETHERNET + ip_bytes + __builtin_offsetof(struct udphdr, check);
    int partial = 0;
    if (checksum && is_partial(skb, at, checksum, &partial))
        return -1;
    if (partial) {
        int moved = shift_payload(skb, ETHERNET + ip_bytes + UDP, step);
        return moved == 1 ? PSEUDO : moved;
    }
    if (!resize_head(skb, step->wraps ? CHANNEL : -CHANNEL, BPF_ADJ_ROOM_MAC,
                     BPF_F_ADJ_ROOM_NO_CSUM_RESET))
        return WHOLE;
    /* Nothing was moved; undo the trial. */
    if (checksum && store(skb, at, &checksum, sizeof checksum, 0))
        return -1;
    return 0;
}

/* The sums that leave the UDP checksum and come into it with ports, length and channel header. */
INLINE __u64 udp_difference(const struct udphdr *before, const struct udphdr *after,
                            const struct step *step)
{
    __u64 sum = GONE16(before->source) + GONE16(before->dest) + 2 * GONE16(before->len);
    sum += (__u64)after->source + after->dest + 2 * (__u64)after->len;
    if (step->wraps)
        return sum + step->channel + htons(step->payload);
    return sum + GONE16(step->channel) + GONE16(htons(step->payload));
}

/* The channel number that a payload begins with; 0: it does not, or is not plain (padded, empty). */
INLINE __be16 read_channel(const __be16 *header, __u32 udp_length)
{
    __u32 payload = ntohs(header[1]);
    if ((ntohs(header[0]) & 0xc000) != 0x4000 || !payload || payload + UDP + CHANNEL != udp_length)
        return 0;
    return header[0];
}

/* Where `bytes` bytes of the packet can be read and written; 0: it is shorter. */
INLINE void *view(struct __sk_buff *skb, const __u32 bytes)
{
    void *data = (void *)(long)skb->data;
    if (data + bytes <= (void *)(long)skb->data_end)
        return data;
    if (pull(skb, bytes))
        return 0;
    data = (void *)(long)skb->data;
    return data + bytes <= (void *)(long)skb->data_end ? data : 0;
}

/* What becomes of a packet: `channel` is its own, or 0. */
#define STEP(way, udp_length, number)                                                              \
    {                                                                                              \
        (udp_length) - UDP - ((number) ? CHANNEL : 0), (way)->meter, (way)->behind, (way)->ahead,  \
            (number) ? (number) : (way)->channel, !(number)                                        \
    }

INLINE __u32 length_after(const struct step *step)
{
    return UDP + step->payload + (step->wraps ? CHANNEL : 0);
}

/* Write what stands before the payload, count, and send the packet where it goes. */
INLINE int leave(struct __sk_buff *skb, const __u32 start, const struct step *step,
                 const struct hop *ahead, struct meter *meter)
{
    void *data = view(skb, step->wraps ? start + CHANNEL : start);
    if (!data)
        return TC_ACT_SHOT;
    if (step->wraps) {
        __be16 *header = data + start;
        header[0] = step->channel;
        header[1] = htons(step->payload);
    }
    __sync_fetch_and_add(&meter->packets, 1);
    __sync_fetch_and_add(&meter->bytes, step->payload);
    if (ahead->local)
        return TC_ACT_OK;
    __builtin_memcpy(data, ahead->head, sizeof ahead->head);
    return redirect(ahead->device, 0);
}

struct head4 {
    struct iphdr ip;
    struct udphdr udp;
};

struct head6 {
    struct ipv6hdr ip;
    struct udphdr udp;
};

INLINE int is_plain4(const struct __sk_buff *skb, const struct head4 *head)
{
    __u32 length = ntohs(head->udp.len);
    return *(__u8 *)head == 0x45 && head->ip.protocol == IPPROTO_UDP && head->ip.ttl > 1 &&
           !(head->ip.frag_off & htons(FRAGMENT)) &&
           ntohs(head->ip.tot_len) == sizeof head->ip + length &&
           skb->len == ETHERNET + sizeof head->ip + length;
}

/* The header as it leaves (RFC 8656 §14: a new packet of this server's, one hop older). */
INLINE void readdress4(const struct head4 *old, struct head4 *new, const struct way4 *way,
                       const struct step *step)
{
    const __u32 *before = (void *)old, *after = (void *)new;
    __u64 sum = 0;
    *new = *old;
    new->ip.saddr = way->source;
    new->ip.daddr = way->destination;
    new->ip.tot_len = htons(sizeof new->ip + length_after(step));
    new->ip.ttl = old->ip.ttl - 1;
    new->ip.frag_off = 0;
    new->ip.id = random();
    new->ip.check = 0;
#pragma unroll
    for (int i = 0; i < 5; i++) /* the old checksum is among the words that go (RFC 1624) */
        sum += (__u64)GONE(before[i]) + after[i];
    new->ip.check = ~fold(sum);
    new->udp.source = way->source_port;
    new->udp.dest = way->destination_port;
    new->udp.len = htons(length_after(step));
    new->udp.check = 0;
    if (!old->udp.check)
        return;
    sum = GONE16(old->udp.check) + udp_difference(&old->udp, &new->udp, step);
    sum += (__u64)GONE(old->ip.saddr) + GONE(old->ip.daddr) + new->ip.saddr + new->ip.daddr;
    sum = (__u16)~fold(sum);
    new->udp.check = sum ? sum : 0xffff;
}

INLINE int relay4(struct __sk_buff *skb)
{
    const __u32 start = ETHERNET + sizeof(struct head4);
    void *data = view(skb, start + CHANNEL);
    if (!data || !is_plain4(skb, data + ETHERNET))
        return UP;
    struct head4 old = *(struct head4 *)(data + ETHERNET), new;
    struct key4 key = {old.ip.saddr, old.ip.daddr, old.udp.source, old.udp.dest, 0, 0};
    if (is_listening(key.destination_port)) {
        key.channel = read_channel(data + start, ntohs(old.udp.len));
        if (!key.channel)
            return UP;
    }
    struct way4 *way = lookup(&ways4, &key);
    if (!way)
        return UP;
    struct step step = STEP(way, ntohs(old.udp.len), key.channel);
    struct meter *meter;
    struct hop *ahead = admit(skb, &step, sizeof old.ip + length_after(&step), &meter);
    if (!ahead)
        return UP;
    readdress4(&old, &new, way, &step);
    int resized = resize(skb, sizeof old.ip, old.udp.check, &step);
    if (resized < 1)
        return resized ? TC_ACT_SHOT : UP;
    if (resized == PSEUDO)
        new.udp.check = fold((__u64)new.ip.saddr + new.ip.daddr + new.udp.len + htons(IPPROTO_UDP));
    data = view(skb, start);
    if (!data)
        return TC_ACT_SHOT;
    *(struct head4 *)(data + ETHERNET) = new;
    return leave(skb, start, &step, ahead, meter);
}

INLINE int is_plain6(const struct __sk_buff *skb, const struct head6 *head)
{
    __u32 length = ntohs(head->udp.len);
    return *(__u8 *)head >> 4 == 6 && head->ip.nexthdr == IPPROTO_UDP && head->ip.hop_limit > 1 &&
           head->udp.check && ntohs(head->ip.payload_len) == length &&
           skb->len == ETHERNET + sizeof head->ip + length;
}

INLINE __u64 sum_of_addresses(const struct ipv6hdr *ip)
{
    const __u32 *words = (void *)&ip->saddr;
    __u64 sum = 0;
#pragma unroll
    for (int i = 0; i < 8; i++)
        sum += words[i];
    return sum;
}

INLINE void readdress6(const struct head6 *old, struct head6 *new, const struct way6 *way,
                       const struct step *step)
{
    *new = *old;
    __builtin_memcpy(&new->ip.saddr, way->source, sizeof way->source);
    __builtin_memcpy(&new->ip.daddr, way->destination, sizeof way->destination);
    new->ip.payload_len = htons(length_after(step));
    new->ip.hop_limit = old->ip.hop_limit - 1;
    new->udp.source = way->source_port;
    new->udp.dest = way->destination_port;
    new->udp.len = new->ip.payload_len;
    __u64 sum = GONE16(old->udp.check) + udp_difference(&old->udp, &new->udp, step);
    sum += sum_of_addresses(&new->ip) + GONE16(fold(sum_of_addresses(&old->ip)));
    sum = (__u16)~fold(sum);
    new->udp.check = sum ? sum : 0xffff;
}

INLINE int relay6(struct __sk_buff *skb)
{
    const __u32 start = ETHERNET + sizeof(struct head6);
    void *data = view(skb, start + CHANNEL);
    if (!data || !is_plain6(skb, data + ETHERNET))
        return UP;
    struct head6 old = *(struct head6 *)(data + ETHERNET), new;
    struct key6 key = {.source_port = old.udp.source, .destination_port = old.udp.dest};
    __builtin_memcpy(key.source, &old.ip.saddr, sizeof key.source);
    __builtin_memcpy(key.destination, &old.ip.daddr, sizeof key.destination);
    if (is_listening(key.destination_port)) {
        key.channel = read_channel(data + start, ntohs(old.udp.len));
        if (!key.channel)
            return UP;
    }
    struct way6 *way = lookup(&ways6, &key);
    if (!way)
        return UP;
    struct step step = STEP(way, ntohs(old.udp.len), key.channel);
    struct meter *meter;
    struct hop *ahead = admit(skb, &step, sizeof old.ip + length_after(&step), &meter);
    if (!ahead)
        return UP;
    readdress6(&old, &new, way, &step);
    int resized = resize(skb, sizeof old.ip, old.udp.check, &step);
    if (resized < 1)
        return resized ? TC_ACT_SHOT : UP;
    if (resized == PSEUDO)
        new.udp.check = fold(sum_of_addresses(&new.ip) + new.udp.len + htons(IPPROTO_UDP));
    data = view(skb, start);
    if (!data)
        return TC_ACT_SHOT;
    *(struct head6 *)(data + ETHERNET) = new;
    return leave(skb, start, &step, ahead, meter);
}

SECTION("tc") int relay(struct __sk_buff *skb)
{
    /* Not for this machine, of another network, or several packets in one. */
    if (skb->pkt_type != PACKET_HOST || skb->vlan_present || skb->gso_size)
        return UP;
    if (skb->protocol == htons(ETH_P_IP))
        return relay4(skb);
    if (skb->protocol == htons(ETH_P_IPV6))
        return relay6(skb);
    return UP;
}

char terms[] SECTION("license") = "Apache-2.0";
