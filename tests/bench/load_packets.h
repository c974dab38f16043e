// Packets that are sent and taken: each says which it is, and when it left.
#pragma once

#include "load_stun.h"

#define MOST_AT_ONCE 64 // packets a system call
#define HB 400000
static uint32_t hist[HB];
static uint64_t hcnt;
static uint64_t sent, rcvd, rcv_c, rcv_p, bad, sfail, drained_ind;
static uint8_t (*tb)[2048];
static struct mmsghdr *tm;
static struct iovec *ti;
struct pl {
    uint32_t magic, idx, trial, pad;
    uint64_t ts;
};

static void account(uint8_t *p, int n, int idx, uint64_t t) {
    struct pl *h = (void *)p;
    if (n != L || h->magic != 0x4e45474c || (idx >= 0 && h->idx != (uint32_t)idx) ||
        p[n - 1] != 0x5a) {
        bad++;
        if (verbose && bad < 5)
            fprintf(stderr, "bad n=%d L=%d magic=%x idx=%u/%d\n", n, L, h->magic, h->idx, idx);
        return;
    }
    if (h->trial != trial)
        return;
    rcvd++;
    uint64_t d = (t - h->ts) / 100;
    if (d >= HB)
        d = HB - 1;
    hist[d]++;
    hcnt++;
}

static uint8_t rb[MOST_AT_ONCE][2048];
static struct mmsghdr rm[MOST_AT_ONCE];
static struct iovec ri[MOST_AT_ONCE];

static int drain(int tmo) {
    struct epoll_event ev[128];
    int n = epoll_wait(ep, ev, 128, tmo), tot = 0;
    for (int e = 0; e < n; e++) {
        int id = ev[e].data.u32;
        int fd = id < N ? cl[id].fd : pfd[id - N];
        int r;
        int loops = 0;
        do {
            r = recvmmsg(fd, rm, id < N ? 32 : MOST_AT_ONCE, MSG_DONTWAIT, 0);
            if (r <= 0)
                break;
            uint64_t t = now();
            tot += r;
            for (int k = 0; k < r; k++) {
                uint8_t *b = rb[k];
                int l = rm[k].msg_len;
                if (id >= N) {
                    account(b, l, -1, t);
                    rcv_p++;
                } else if (direct) {
                    account(b, l, id, t);
                    rcv_c++;
                } else if (b[0] >= 0x40) {
                    int cl_ = b[2] << 8 | b[3];
                    if (l < 4 + cl_) {
                        bad++;
                        continue;
                    }
                    account(b + 4, cl_, id, t);
                    rcv_c++;
                } else if (b[0] == 0 && b[1] == 0x17) {
                    uint8_t *p = b + 20, *end = b + l;
                    while (p + 4 <= end) {
                        int at = p[0] << 8 | p[1], al = p[2] << 8 | p[3];
                        if (at == 0x13) {
                            account(p + 4, al, id, t);
                            rcv_c++;
                            drained_ind++;
                            break;
                        }
                        p += 4 + al + ((4 - al % 4) % 4);
                    }
                }
            }
        } while (r == (id < N ? 32 : MOST_AT_ONCE) && ++loops < 4);
    }
    return tot;
}

static int ci = 0, pi = 0; // whose turn it is to send, each way
static int fill(int slot, int i, int c2p, uint64_t t) {
    uint8_t *b = tb[slot];
    struct pl h = {0x4e45474c, i, trial, 0, t};
    int off = 0, tot;
    if (c2p && !direct) {
        if (!ind) {
            b[0] = 0x40;
            b[1] = 0;
            b[2] = L >> 8;
            b[3] = L;
            off = 4;
            tot = L + 4;
        } else {
            b[0] = 0;
            b[1] = 0x16;
            *(uint32_t *)(b + 4) = htonl(COOKIE);
            memset(b + 8, 7, 12);
            uint8_t x[20];
            int n = xaddr(x, &peers[i % K], b + 8);
            uint8_t *p = attr(b + 20, 0x12, x, n);
            p[0] = 0;
            p[1] = 0x13;
            p[2] = L >> 8;
            p[3] = L;
            off = p + 4 - b;
            tot = off + ((L + 3) & ~3);
            int ml = tot - 20;
            b[2] = ml >> 8;
            b[3] = ml;
        }
    } else {
        off = 0;
        tot = L;
    }
    memcpy(b + off, &h, sizeof h);
    b[off + L - 1] = 0x5a;
    return tot;
}

static int sendsome(int c2p, int want) { // one visit: up to `burst` pkts of one client; p2c: up to
                                         // want pkts over many allocations in one sendmmsg
    uint64_t t = now();
    int n;
    if (c2p) {
        int i = ci;
        ci = (ci + 1) % N;
        n = burst < want ? burst : want;
        if (n < 1)
            n = 1;
        for (int k = 0; k < n; k++) {
            int tl = fill(k, i, 1, t);
            ti[k].iov_base = tb[k];
            ti[k].iov_len = tl;
            tm[k].msg_hdr.msg_name = 0;
            tm[k].msg_hdr.msg_namelen = 0;
        }
        int r = n == 1 ? (send(cl[i].fd, tb[0], ti[0].iov_len, MSG_DONTWAIT) > 0 ? 1 : -1)
                       : sendmmsg(cl[i].fd, tm, n, MSG_DONTWAIT);
        if (r < 0) {
            sfail++;
            return 0;
        }
        sent += r;
        return r;
    }
    // p2c
    int s = pi % K;
    int m = want < MOST_AT_ONCE ? want : MOST_AT_ONCE;
    if (m < 1)
        m = 1;
    if (K > 1)
        m = burst < want ? burst : want;
    if (m < 1)
        m = 1;
    int bcount = 0, i = pi;
    for (n = 0; n < m; n++) {
        int tl = fill(n, i, 0, t);
        ti[n].iov_base = tb[n];
        ti[n].iov_len = tl;
        tm[n].msg_hdr.msg_name = &cl[i].relay;
        tm[n].msg_hdr.msg_namelen = alen(&cl[i].relay);
        if (++bcount >= burst) {
            bcount = 0;
            i = (i + 1) % N;
        }
    }
    pi = (i != pi || N == 1) ? i : (pi + 1) % N;
    int r = sendmmsg(pfd[s], tm, n, MSG_DONTWAIT);
    if (r < 0) {
        sfail++;
        return 0;
    }
    sent += r;
    return r;
}
