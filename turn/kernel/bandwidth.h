/* SPDX-License-Identifier: Apache-2.0
 *
 * How many bytes may pass: the rule of `turn/bandwidth.py`, for packets that it does not see. A packet
 * passes where each of its buckets holds enough, and then takes from each: its payload, or more
 * where that is very small. Included behind the
 * program's entry, which has to be the first function of its section.
 */
#ifndef ICEBROKER_BANDWIDTH_H
#define ICEBROKER_BANDWIDTH_H

#include "step.h"

#define SECOND (1000000000ull * TICKS)
#define TRIES 8 /* to be faster than the other processors */
#define READ(place) (*(volatile __u64 *)&(place))

/* The greater of two numbers that are less than 2^63 apart, without a branch: the kernel's verifier
 * follows both ways of each, in every round of every loop. */
INLINE __u64 greater(__u64 one, __u64 other)
{
    __u64 more = one - other, is_less = (__s64)more >> 63;
    OPAQUE(is_less);
    return one - (more & is_less);
}

/* Take what a packet costs, if it is there. */
INLINE int take(struct bucket *bucket, __u64 now, __u64 cost)
{
#pragma nounroll
    for (int i = 0; i < TRIES; i++) {
        __u64 full = READ(bucket->full), lent = READ(bucket->lent);
        __u64 start = greater(now, greater(full, lent));
        if (start + cost > now + SECOND)
            return EMPTY;
        __u64 seen = __sync_val_compare_and_swap(&bucket->full, full, start + cost);
        OPAQUE(seen); /* one comparison, not two */
        if (seen != full)
            continue;
        /* User space has no such instruction: it writes, and looks whether we did; so do we. Who
         * sees the other's adds it: too much rather than too little. */
        __u64 written = READ(bucket->lent);
        if (written != lent && written > start)
            __sync_fetch_and_add(&bucket->full, written - start);
        return TAKEN;
    }
    return BUSY;
}

INLINE struct bucket *bucket_of(const __u32 *indices, __u32 place)
{
    __u32 index = indices[place];
    return index ? lookup(&buckets, &index) : 0;
}

/* A function of its own, as most relays have no limits. */
SECTION(PLACE)
static __attribute__((noinline)) int charge(const __u32 *indices, __u64 payload)
{
    __u64 now = coarse_now() * TICKS;
    payload = greater(payload, SMALLEST);
    for (__u32 i = 0; i < MOST_LIMITS; i++) {
        struct bucket *bucket = bucket_of(indices, i);
        if (!bucket)
            break;
        int result = take(bucket, now, payload * bucket->price >> PRICE_SHIFT);
        if (result == TAKEN)
            continue;
        if (result == EMPTY)
            __sync_fetch_and_add(&bucket->refused, 1);
        for (__u32 j = 0; j < i; j++) {
            struct bucket *earlier = bucket_of(indices, j);
            if (earlier)
                __sync_fetch_and_add(&earlier->full, -(payload * earlier->price >> PRICE_SHIFT));
        }
        return result;
    }
    return TAKEN;
}

#endif
