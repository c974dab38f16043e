/* SPDX-License-Identifier: Apache-2.0
 *
 * Making room in a socket buffer before and behind a payload, or taking it away.
 */
#ifndef ICEBROKER_RESIZE_H
#define ICEBROKER_RESIZE_H

#include "step.h"

enum { SPOILED = -1, UNCHANGED, WHOLE, PSEUDO };

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
 * buffer remembers where the UDP header is, and it has to stay there. Padding that is made is zero. */
INLINE int shift_payload(struct __sk_buff *skb, __u32 start, const struct step *step)
{
    __u32 zero = 0, size = step->payload;
    struct scratch *page = lookup(&scratch, &zero);
    if (!page || size < 1 || size > SHIFTED)
        return UNCHANGED;
    __u32 from = step->wraps ? start : start + step->front;
    __u32 to = step->wraps ? start + step->front : start;
    if (load(skb, from, page->words, size))
        return UNCHANGED;
    if (step->wraps && resize_tail(skb, to + size + step->tail, 0))
        return UNCHANGED;
    if (store(skb, to, page->words, size, 0))
        return SPOILED;
    if (!step->wraps && resize_tail(skb, to + size, 0))
        return SPOILED;
    return PSEUDO;
}

/* The same by moving the headers: what is longest stays where it is. The tail grows first and
 * shrinks last, as taking away what was added gives back the packet as it was. */
INLINE int shift_headers(struct __sk_buff *skb, const struct step *step)
{
    __u32 tail = step->tail, length = skb->len;
    __s32 change = step->wraps ? (__s32)step->front : -(__s32)step->front;
    if (step->wraps && tail && resize_tail(skb, length + tail, 0))
        return UNCHANGED;
    if (resize_head(skb, change, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
        return step->wraps && tail && resize_tail(skb, length, 0) ? SPOILED : UNCHANGED;
    if (!step->wraps && tail && resize_tail(skb, length - step->front - tail, 0))
        return SPOILED;
    return WHOLE;
}

/* Make room for the new headers, or take room away, and say which checksum belongs there: WHOLE, or
 * that of the PSEUDO header.
 *
 * checksum: of UDP, at this place; 0: there is none. */
INLINE int resize(struct __sk_buff *skb, __u32 at, __u16 checksum, const struct step *step)
{
    const __u32 start = at - offsetof(struct udphdr, check) + UDP;
    int partial = 0;
    if (checksum && is_partial(skb, at, checksum, &partial))
        return SPOILED;
    if (partial)
        return shift_payload(skb, start, step);
    int moved = shift_headers(skb, step);
    /* Nothing was moved; undo the trial. */
    if (moved == UNCHANGED && checksum && store(skb, at, &checksum, sizeof checksum, 0))
        return SPOILED;
    return moved;
}

/* Whether `bytes` bytes of the packet can be read and written, and where. */
INLINE int view(struct __sk_buff *skb, const __u32 bytes, void **data)
{
    if ((void *)(long)skb->data + bytes > (void *)(long)skb->data_end && pull(skb, bytes))
        return 0;
    *data = (void *)(long)skb->data;
    return *data + bytes <= (void *)(long)skb->data_end;
}

#endif
