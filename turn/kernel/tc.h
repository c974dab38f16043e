/* SPDX-License-Identifier: Apache-2.0
 *
 * What a packet is at tc: a socket buffer. How it is looked at, judged and made longer or shorter.
 */
#ifndef ICEBROKER_TC_H
#define ICEBROKER_TC_H

#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include "maps.h"

#define PLACE "tc"
#define TALLY packets        /* what of a way counts here */
#define TELLS_PARTIAL 1      /* `resize` finds out */
#define UP TC_ACT_UNSPEC     /* to whoever is next, in the end to user space */
#define LOST TC_ACT_SHOT

typedef struct __sk_buff context;

static long (*const pull)(context *, __u32) = (void *)BPF_FUNC_skb_pull_data;
static long (*const load)(const context *, __u32, void *, __u32) = (void *)BPF_FUNC_skb_load_bytes;
static long (*const store)(context *, __u32, const void *, __u32, __u64) =
    (void *)BPF_FUNC_skb_store_bytes;
static long (*const replace_checksum)(context *, __u32, __u64, __u64, __u64) =
    (void *)BPF_FUNC_l4_csum_replace;
static long (*const resize_head)(context *, __s32, __u32, __u64) =
    (void *)BPF_FUNC_skb_adjust_room;
static long (*const resize_tail)(context *, __u32, __u64) = (void *)BPF_FUNC_skb_change_tail;
static long (*const redirect)(__u32, __u64) = (void *)BPF_FUNC_redirect;
static long (*const redirect_across)(__u32, __u64) = (void *)BPF_FUNC_redirect_peer;

INLINE __u32 length_of(const context *skb)
{
    return skb->len;
}

INLINE __u32 device_of(const context *skb)
{
    return skb->ifindex;
}

/* The entry has seen to that. */
INLINE int is_for_us(const context *skb, const struct hop *behind)
{
    (void)skb, (void)behind;
    return 1;
}

INLINE int can_leave(const struct hop *ahead)
{
    (void)ahead;
    return 1;
}

INLINE int leave(const struct hop *ahead)
{
    if (ahead->road == LOCAL)
        return TC_ACT_OK;
    return ahead->road == ACROSS ? redirect_across(ahead->device, 0) : redirect(ahead->device, 0);
}

enum { SPOILED = -1, UNCHANGED, WHOLE, PSEUDO };

/* Whether the checksum field holds the pseudo header's sum only and a device is to do the rest
 * (CHECKSUM_PARTIAL). No field of the context says so, but this helper leaves the checksum alone
 * only then; else it has changed it, and the caller writes a new one anyway. */
INLINE int is_partial(context *skb, __u32 offset, __u16 checksum, int *result)
{
    if (replace_checksum(skb, offset, 0, 0x1234, 0))
        return -1;
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    if (data + offset + 2 > end)
        return -1;
    *result = *(__u16 *)(data + offset) == checksum;
    return 0;
}

/* Padding is zero: what is added by making the packet longer is, what is left of the old is not. */
INLINE int clear_padding(context *skb, __u32 at, const struct step *step)
{
    __u32 zero = 0, size = bounded(step->put_tail, PAD - 1);
    if (!step->taken_tail || !size)
        return 0;
    return store(skb, at, &zero, size, 0);
}

/* Make or close the gap before the payload by moving the payload: with CHECKSUM_PARTIAL the socket
 * buffer remembers where the UDP header is, and it has to stay there. */
INLINE int shift_payload(context *skb, __u32 start, const struct step *step)
{
    __u32 zero = 0, size = bounded(step->payload, SHIFTED), length = skb->len;
    __u32 from = start + step->taken_front, to = start + step->put_front;
    __u32 end = to + size + step->put_tail;
    struct scratch *page = lookup(&scratch, &zero);
    if (!page || !size)
        return UNCHANGED;
    if (from != to && load(skb, from, page->words, size))
        return UNCHANGED;
    if (end > length && resize_tail(skb, end, 0))
        return UNCHANGED;
    if (from != to && store(skb, to, page->words, size, 0))
        return SPOILED;
    if (end < length && resize_tail(skb, end, 0))
        return SPOILED;
    return clear_padding(skb, to + size, step) ? SPOILED : PSEUDO;
}

/* The same by moving the headers: what is longest stays where it is. The tail grows first and
 * shrinks last, as taking away what was added gives back the packet as it was. */
INLINE int shift_headers(context *skb, __u32 start, const struct step *step)
{
    __u32 length = skb->len, end = start + step->put_front + step->payload;
    __s32 front = step->put_front - step->taken_front;
    __s32 tail = step->put_tail - step->taken_tail;
    if (tail > 0 && resize_tail(skb, length + tail, 0))
        return UNCHANGED;
    if (front && resize_head(skb, front, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
        return tail > 0 && resize_tail(skb, length, 0) ? SPOILED : UNCHANGED;
    if (tail < 0 && resize_tail(skb, length + front + tail, 0))
        return SPOILED;
    return clear_padding(skb, end, step) ? SPOILED : WHOLE;
}

/* Make room for the new headers, or take room away, and say which checksum belongs there: WHOLE, or
 * that of the PSEUDO header.
 *
 * doubtful: the checksum of UDP, at this place, if it may be partial; 0: it is whole, or there is
 * none. (To find out for every packet would cost a tenth of what the program takes.) */
INLINE int resize(context *skb, __u32 at, __u16 doubtful, const struct step *step)
{
    const __u32 start = at - offsetof(struct udphdr, check) + UDP;
    int partial = 0;
    if (doubtful && is_partial(skb, at, doubtful, &partial))
        return SPOILED;
    if (partial)
        return shift_payload(skb, start, step);
    int moved = shift_headers(skb, start, step);
    /* Nothing was moved; undo the trial. */
    if (moved == UNCHANGED && doubtful && store(skb, at, &doubtful, sizeof doubtful, 0))
        return SPOILED;
    return moved;
}

/* Whether `bytes` bytes of the packet can be read and written, and where. */
INLINE int view(context *skb, const __u32 bytes, void **data)
{
    if ((void *)(long)skb->data + bytes > (void *)(long)skb->data_end && pull(skb, bytes))
        return 0;
    *data = (void *)(long)skb->data;
    return *data + bytes <= (void *)(long)skb->data_end;
}

#endif
