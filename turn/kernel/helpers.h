/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's helpers that the program calls, and small things that C lacks. None of them is
 * GPL-only, and all contexts are UAPI: no BTF, no headers of the running kernel.
 */
#ifndef ICEBROKER_HELPERS_H
#define ICEBROKER_HELPERS_H

#include <linux/bpf.h>
#include <linux/types.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline
#define offsetof(type, field) __builtin_offsetof(type, field)
#define htons(number) __builtin_bswap16(number)
#define ntohs(number) __builtin_bswap16(number)
#define htonl(number) __builtin_bswap32(number)

/* The compiler is to have this number here, and not to know what it is. */
#define OPAQUE(number) asm volatile("" : "+r"(number))

static void *(*const lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*const coarse_now)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static __u32 (*const random)(void) = (void *)BPF_FUNC_get_prandom_u32;

/* A size that is 1 to `most`, in terms that the verifier of every kernel understands, else 0. */
INLINE __u32 bounded(__u32 size, __u32 most)
{
    __u32 less = size - 1;
    OPAQUE(less);
    if (less >= most)
        return 0;
    OPAQUE(less);
    return less + 1;
}

/* The loader reads these; no BTF is needed so. */
struct map {
    __u32 type, key_size, value_size, max_entries, flags;
};

#define MAP(name, kind, key, value, entries, how)                                                  \
    struct map name SECTION("maps") = {BPF_MAP_TYPE_##kind, sizeof(key), sizeof(value), entries, how}

/* The ones' complement sum (RFC 1071) of 16-bit words, out of a sum of longer ones. */
INLINE __u16 fold(__u64 sum)
{
    sum = (sum >> 32) + (__u32)sum; /* less than 2^33 */
    __u32 rest = (sum >> 16) + (__u16)sum;
    rest = (rest >> 16) + (__u16)rest; /* 0x10001 at most */
    return (rest >> 16) + rest;
}

#define GONE(word) ((__u32) ~(word))          /* for a 32-bit word that is no longer there */
#define GONE16(word) ((__u64)(__u16) ~(word)) /* for a 16-bit one */

#endif
