// STUN on the wire: attributes, and addresses that are XORed (RFC 8489 §14).
#pragma once

#include "load.h"

static uint8_t *attr(uint8_t *p, int t, const void *v, int n) {
    p[0] = t >> 8;
    p[1] = t;
    p[2] = n >> 8;
    p[3] = n;
    memcpy(p + 4, v, n);
    int pad = (4 - n % 4) % 4;
    memset(p + 4 + n, 0, pad);
    return p + 4 + n + pad;
}

static int xaddr(uint8_t *o, addr_t *a, const uint8_t *tid) {
    uint8_t m[16] = {0x21, 0x12, 0xA4, 0x42};
    memcpy(m + 4, tid, 12);
    o[0] = 0;
    if (a->sa.sa_family == AF_INET) {
        o[1] = 1;
        memcpy(o + 2, &a->v4.sin_port, 2);
        memcpy(o + 4, &a->v4.sin_addr, 4);
        o[2] ^= 0x21;
        o[3] ^= 0x12;
        for (int i = 0; i < 4; i++)
            o[4 + i] ^= m[i];
        return 8;
    }
    o[1] = 2;
    memcpy(o + 2, &a->v6.sin6_port, 2);
    memcpy(o + 4, &a->v6.sin6_addr, 16);
    o[2] ^= 0x21;
    o[3] ^= 0x12;
    for (int i = 0; i < 16; i++)
        o[4 + i] ^= m[i];
    return 20;
}

static void unx(const uint8_t *v, int n, addr_t *a, const uint8_t *tid) {
    uint8_t b[20];
    memcpy(b, v, n > 20 ? 20 : n);
    uint8_t m[16] = {0x21, 0x12, 0xA4, 0x42};
    memcpy(m + 4, tid, 12);
    b[2] ^= 0x21;
    b[3] ^= 0x12;
    memset(a, 0, sizeof *a);
    if (b[1] == 1) {
        for (int i = 0; i < 4; i++)
            b[4 + i] ^= m[i];
        a->v4.sin_family = AF_INET;
        memcpy(&a->v4.sin_port, b + 2, 2);
        memcpy(&a->v4.sin_addr, b + 4, 4);
    } else {
        for (int i = 0; i < 16; i++)
            b[4 + i] ^= m[i];
        a->v6.sin6_family = AF_INET6;
        memcpy(&a->v6.sin6_port, b + 2, 2);
        memcpy(&a->v6.sin6_addr, b + 4, 16);
    }
}
