/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel plane's program: carries ChannelData <-> peer UDP (RFC 8656 §12) and Send and Data
 * indications of the plain shape (§11) at a device's ingress, for the routes that the control plane
 * has written, and passes everything else up to user space.
 *
 * The one rule: until the first byte of a packet has changed, any doubt passes it up unchanged.
 * What user space would refuse has no way here, or a closed one, and is refused there, by name.
 */
#include <linux/if_packet.h>

#include "tc.h"

#include "packet.h"

SECTION(PLACE) int relay(context *ctx)
{
    /* Not for this machine, of another network, or several packets in one. */
    if (ctx->pkt_type != PACKET_HOST || ctx->vlan_present || ctx->gso_size)
        return UP;
    return carry(ctx, ctx->protocol);
}

#include "bandwidth.h"
#include "fingerprint.h"

char terms[] SECTION("license") = "Apache-2.0";
