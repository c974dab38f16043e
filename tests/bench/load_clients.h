// Clients of a relay: Allocate, CreatePermission or ChannelBind, and the end.
#pragma once

#include "load_stun.h"

static uint64_t rs = 88172645463325252ull;

static uint64_t rnd(void) {
    rs ^= rs << 13;
    rs ^= rs >> 7;
    rs ^= rs << 17;
    return rs;
}

static void set_length(uint8_t *b, const uint8_t *end) {
    int length = end - b - 20;
    b[2] = length >> 8;
    b[3] = length;
}

/* Append who sends a request, and MESSAGE-INTEGRITY over it; gives its end. */
static uint8_t *sign(const cl_t *c, uint8_t *b, uint8_t *p) {
    p = attr(p, 6, user, strlen(user));
    p = attr(p, 0x14, realm, strlen(realm));
    p = attr(p, 0x15, c->nonce, c->nonce_len);
    set_length(b, p + 24);
    uint8_t h[20];
    unsigned hl;
    HMAC(EVP_sha1(), key, 16, b, p - b, h, &hl);
    return attr(p, 8, h, 20);
}

static void mkreq(int i) {
    cl_t *c = &cl[i];
    uint8_t *b = c->req, *p;
    uint64_t r1 = rnd(), r2 = rnd();
    memcpy(c->tid, &r1, 8);
    memcpy(c->tid + 8, &r2, 4);
    int type = c->state <= 1 ? 3 : c->state == 2 ? 8 : 9;
    b[0] = type >> 8;
    b[1] = type;
    *(uint32_t *)(b + 4) = htonl(COOKIE);
    memcpy(b + 8, c->tid, 12);
    p = b + 20;
    if (type == 3) {
        uint32_t rt = htonl(17u << 24);
        p = attr(p, 0x19, &rt, 4);
        uint32_t lt = htonl(600);
        p = attr(p, 0x0d, &lt, 4);
        if (peer0.sa.sa_family == AF_INET6) {
            uint8_t f[4] = {2, 0, 0, 0};
            p = attr(p, 0x17, f, 4);
        }
    } else {
        uint8_t x[20];
        if (type == 9) {
            uint8_t ch[4] = {0x40, 0, 0, 0};
            p = attr(p, 0x0c, ch, 4);
        }
        int n = xaddr(x, &peers[i % K], c->tid);
        p = attr(p, 0x12, x, n);
    }
    if (c->state > 0)
        p = sign(c, b, p);
    set_length(b, p);
    c->req_len = p - b;
    c->tries = 0;
}

static void txreq(int i) {
    cl_t *c = &cl[i];
    c->t_tx = now();
    c->tries++;
    if (send(c->fd, c->req, c->req_len, 0) < 0 && verbose)
        perror("send");
}

static void mkclient(int i) {
    int csz = 1 << 20;
    addr_t a = cbind;
    int f = cl[i].fd = socket(a.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (f < 0)
        die("socket");
    if (bind(f, &a.sa, alen(&a)))
        die("bind client");
    setsockopt(f, SOL_SOCKET, SO_RCVBUFFORCE, &csz, 4);
    setsockopt(f, SOL_SOCKET, SO_SNDBUFFORCE, &csz, 4);
    if (direct && (dir & 1)) {
        if (connect(f, &peers[i % K].sa, alen(&peers[i % K])))
            die("connect");
    }
    if (!direct) {
        if (connect(f, &srv.sa, alen(&srv)))
            die("connect");
    } else {
        socklen_t l = sizeof cl[i].relay;
        getsockname(f, &cl[i].relay.sa, &l);
    }
    struct epoll_event e = {EPOLLIN, {.u32 = i}};
    epoll_ctl(ep, EPOLL_CTL_ADD, f, &e);
}

static long retrans = 0, mism = 0;
static void allocate(void) { // returns when all in state 9
    uint64_t t0 = now();
    int started = 0, done = 0;
    struct epoll_event ev[256];
    uint64_t tlast = t0;
    while (done < N) {
        while (started < N && started - done < conc) {
            cl[started].state = 0;
            mkreq(started);
            txreq(started);
            started++;
        }
        int n = epoll_wait(ep, ev, 256, 20);
        for (int e = 0; e < n; e++) {
            int i = ev[e].data.u32;
            if (i >= N)
                continue;
            cl_t *c = &cl[i];
            uint8_t b[2048];
            int r;
            while ((r = recv(c->fd, b, sizeof b, MSG_DONTWAIT)) >= 20) {
                if (memcmp(b + 8, c->tid, 12) || c->state == 9)
                    continue;
                int type = b[0] << 8 | b[1], code = 0;
                uint8_t *p = b + 20, *end = b + r;
                while (p + 4 <= end) {
                    int t = p[0] << 8 | p[1], l = p[2] << 8 | p[3];
                    if (p + 4 + l > end)
                        break;
                    uint8_t *v = p + 4;
                    if (t == 9)
                        code = (v[2] & 7) * 100 + v[3];
                    else if (t == 0x15 && l < 160) {
                        memcpy(c->nonce, v, l);
                        c->nonce_len = l;
                    } else if (t == 0x14 && !have_key) {
                        memcpy(realm, v, l);
                        realm[l] = 0;
                        char s[1024];
                        int sl = snprintf(s, sizeof s, "%s:%s:%s", user, realm, pass);
                        EVP_Digest(s, sl, key, 0, EVP_md5(), 0);
                        have_key = 1;
                    } else if (t == 0x16)
                        unx(v, l, &c->relay, c->tid);
                    p = v + l + ((4 - l % 4) % 4);
                }
                int cls = (type >> 4 & 1) | (type >> 7 & 2);
                if (cls == 3) {
                    if (code == 401 && c->state == 0)
                        c->state = 1;
                    else if (code == 438)
                        ;
                    else if (code == 437 && c->state <= 1) {
                        close(c->fd);
                        mkclient(i);
                        c->state = 0;
                        mism++;
                    } else {
                        fprintf(stderr, "client %d state %d error %d\n", i, c->state, code);
                        exit(2);
                    }
                } else if (cls == 2) {
                    if (c->state == 1 || c->state == 0)
                        c->state = ind ? 2 : 3;
                    else if (c->state == 2)
                        c->state = 9;
                    else if (c->state == 3)
                        c->state = 9;
                }
                if (c->state == 9) {
                    done++;
                    tlast = now();
                } else {
                    mkreq(i);
                    txreq(i);
                }
                if (c->state == 0)
                    break;
            }
        }
        uint64_t t = now();
        static uint64_t lastchk;
        if (t - lastchk > 100000000ull) {
            lastchk = t;
            for (int i = 0; i < started; i++)
                if (cl[i].state != 9 && t - cl[i].t_tx > 500000000ull) {
                    retrans++;
                    if (cl[i].tries > 12)
                        die("client %d timeout state %d", i, cl[i].state);
                    txreq(i);
                }
        }
    }
    double s = (tlast - t0) / 1e9;
    printf("ALLOC n=%d secs=%.3f rate=%.0f/s retrans=%ld relay0=%d\n", N, s, N / s, retrans,
           ntohs(cl[0].relay.v4.sin_port));
}

static void release(void) {
    for (int i = 0; i < N; i++) {
        cl_t *c = &cl[i];
        uint8_t b[600], *p = b + 20;
        b[0] = 0;
        b[1] = 4;
        *(uint32_t *)(b + 4) = htonl(COOKIE);
        memcpy(b + 8, c->tid, 12);
        b[8] ^= 0xff;
        uint32_t lt = 0;
        p = attr(p, 0x0d, &lt, 4);
        p = sign(c, b, p);
        send(c->fd, b, p - b, 0);
        if (i % 32 == 31)
            usleep(3000);
    }
    usleep(50000);
}
