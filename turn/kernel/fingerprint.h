/* SPDX-License-Identifier: Apache-2.0
 *
 * FINGERPRINT behind an indication (RFC 8489 §14.7), as libjuice has it: user space carries none
 * whose CRC-32 is wrong, so neither does the program. Included behind the program's entry, which has
 * to be the first function of its section.
 */
#ifndef ICEBROKER_FINGERPRINT_H
#define ICEBROKER_FINGERPRINT_H

#include "step.h"

#define FINGERPRINT 0x8028
#define FINGERPRINT_MASK 0x5354554E

/* What each byte of a word does to the remainder, four bytes at a time. */
struct crc {
    __u32 table[4][256];
};
MAP(remainders, ARRAY, __u32, struct crc, 1, 0);

/* Whether the message of `length` bytes at `start` ends with the right one: its sum, as the UDP
 * checksum sees it, or 0. A function of its own, as most packets do not come here. */
SECTION(PLACE)
static __attribute__((noinline)) __u64 fingerprint_of(context *ctx, __u32 start, __u32 length)
{
    __u32 zero = 0, remainder = ~0, size = length - FINGERPRINT_BYTES;
    struct scratch *page = lookup(&scratch, &zero);
    struct crc *crc = lookup(&remainders, &zero);
    struct {
        __be16 number, length;
        __be32 value;
    } last;
    length = bounded(length, SHIFTED);
    if (!page || !crc || !length || load(ctx, start, page->words, length))
        return 0;
    if (load(ctx, start + size, &last, sizeof last))
        return 0;
    for (__u32 i = 0; i < SHIFTED / 4 && 4 * i < size; i++) {
        remainder ^= page->words[i];
        remainder = crc->table[3][remainder & 255] ^ crc->table[2][remainder >> 8 & 255] ^
                    crc->table[1][remainder >> 16 & 255] ^ crc->table[0][remainder >> 24];
    }
    if (last.number != htons(FINGERPRINT) || last.length != htons(4) ||
        last.value != htonl(~remainder ^ FINGERPRINT_MASK))
        return 0;
    return GONE16(last.number) + GONE16(last.length) + GONE(last.value);
}

#endif
