/* SPDX-License-Identifier: Apache-2.0
 *
 * The same program for frames as a driver receives them (XDP), before there is a socket buffer. It
 * carries what comes in at and leaves by devices that passed the self-test; everything else goes on
 * to the program at tc, which stands behind it, and so does every doubt.
 */
#include "xdp.h"

#include "packet.h"

SECTION(PLACE) int relay(context *ctx)
{
    void *data;
    if (!view(ctx, ETHERNET, &data))
        return UP;
    /* A VLAN's tag stands in the place of the protocol. */
    return carry(ctx, ((struct ethhdr *)data)->h_proto);
}

#include "bandwidth.h"
#include "fingerprint.h"

char terms[] SECTION("license") = "Apache-2.0";
