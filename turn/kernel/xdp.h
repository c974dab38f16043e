/* SPDX-License-Identifier: Apache-2.0
 *
 * What a packet is at a driver's: a frame in one piece. How it is looked at, judged and made longer
 * or shorter. Same names as in `tc.h`.
 */
#ifndef ICEBROKER_XDP_H
#define ICEBROKER_XDP_H

#include <linux/udp.h>

#include "maps.h"

#define PLACE "xdp"
#define TALLY frames     /* what of a way counts here */
#define TELLS_PARTIAL 0  /* nothing here tells that a checksum is still to be computed */
#define UP XDP_PASS      /* to tc, in the end to user space */
#define LOST XDP_DROP

typedef struct xdp_md context;

static long (*const load)(const context *, __u32, void *, __u32) = (void *)BPF_FUNC_xdp_load_bytes;
static long (*const store)(context *, __u32, const void *, __u32) =
    (void *)BPF_FUNC_xdp_store_bytes;
static long (*const move_head)(context *, __s32) = (void *)BPF_FUNC_xdp_adjust_head;
static long (*const move_tail)(context *, __s32) = (void *)BPF_FUNC_xdp_adjust_tail;
static long (*const redirect)(void *, __u64, __u64) = (void *)BPF_FUNC_redirect_map;

/* Of a frame in several pieces this is the first one's, and it will not do for any packet. */
INLINE __u32 length_of(const context *ctx)
{
    return (void *)(long)ctx->data_end - (void *)(long)ctx->data;
}

INLINE __u32 device_of(const context *ctx)
{
    return ctx->ingress_ifindex;
}

/* Whether `bytes` bytes of the packet can be read and written, and where. */
INLINE int view(context *ctx, const __u32 bytes, void **data)
{
    *data = (void *)(long)ctx->data;
    return *data + bytes <= (void *)(long)ctx->data_end;
}

/* Whether a frame has this device's hardware address. */
INLINE int is_for_us(context *ctx, const struct hop *behind)
{
    void *data;
    if (!view(ctx, ETHERNET, &data))
        return 0;
    const __u16 *to = data, *own = (const void *)(behind->head + 6);
    return to[0] == own[0] && to[1] == own[1] && to[2] == own[2];
}

/* Whether the next device takes frames. `leave` sends it there: the kernel remembers. */
INLINE int can_leave(const struct hop *ahead)
{
    return redirect(&devices, ahead->device, XDP_PASS) == XDP_REDIRECT;
}

INLINE int leave(const struct hop *ahead)
{
    (void)ahead;
    return XDP_REDIRECT;
}

enum { SPOILED = -1, UNCHANGED, WHOLE, PSEUDO };

/* Padding is zero: what the kernel adds is, what is left of the old is not. */
INLINE int clear_padding(context *ctx, __u32 at, const struct step *step)
{
    __u32 zero = 0, size = bounded(step->put_tail, PAD - 1);
    if (!step->taken_tail || !size)
        return 0;
    return store(ctx, at, &zero, size);
}

/* Make room for the new headers, or take room away. The tail grows first and shrinks last, as
 * taking away what was added gives back the packet as it was. */
INLINE int resize(context *ctx, __u32 at, __u16 doubtful, const struct step *step)
{
    const __u32 start = at - offsetof(struct udphdr, check) + UDP;
    __s32 front = step->put_front - step->taken_front;
    __s32 tail = step->put_tail - step->taken_tail;
    (void)doubtful;
    if (tail > 0 && move_tail(ctx, tail))
        return UNCHANGED;
    if (front && move_head(ctx, -front)) /* a driver may leave less room than we need */
        return tail > 0 && move_tail(ctx, -tail) ? SPOILED : UNCHANGED;
    if (tail < 0 && move_tail(ctx, tail))
        return SPOILED;
    return clear_padding(ctx, start + step->put_front + step->payload, step) ? SPOILED : WHOLE;
}

#endif
