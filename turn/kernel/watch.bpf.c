/* SPDX-License-Identifier: Apache-2.0
 *
 * What a driver makes of frames that are handed to it: the self-test's eyes. A redirect is carried
 * out after its program has returned, and only this tracepoint tells how that went.
 */
#include "helpers.h"

/* By how many frames were handed over at once, what became of them. */
struct fate {
    __u64 sent, dropped;
};
MAP(fates, ARRAY, __u32, struct fate, 64, 0);

/* xdp_devmap_xmit: from which device, to which, frames sent, frames dropped, error. */
enum { SENT = 2, DROPPED };

SECTION("raw_tracepoint") int watch(struct bpf_raw_tracepoint_args *ctx)
{
    __u32 count = ctx->args[SENT] + ctx->args[DROPPED];
    struct fate *fate = lookup(&fates, &count);
    if (fate) {
        __sync_fetch_and_add(&fate->sent, (__u32)ctx->args[SENT]);
        __sync_fetch_and_add(&fate->dropped, (__u32)ctx->args[DROPPED]);
    }
    return 0;
}

char terms[] SECTION("license") = "Apache-2.0";
