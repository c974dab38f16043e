// loadgen: neutral TURN/UDP load generator (throw-away).  gcc -O2 -o loadgen loadgen.c -lcrypto
// usage: loadgen -s SERVER_IP[:PORT or @PORT for v6] -u USER -w PASS [-n allocs] [-l payload] [-D
// c2p|p2c|both] [-m chan|ind]
//   [-r total_pps | 0=blast | -W window (closed loop) | -S (search max rate with <0.1% loss, start
//   hint -r)] [-d secs] [-b burst/socket] [-g gso_segs]
//   [-c client_bind_ip] [-p peer_ip] [-K peer_sockets] [-A client_netns] [-B peer_netns] [-P
//   server_pid[,pid..]] [-k cpu_pin] [-X (direct, no TURN)]
//   [-H hold_secs after allocate] [-Z warm_up_secs before what is measured] [-C alloc_concurrency] [-N (allocate only)] [-o flowfile] [-v]
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#define COOKIE 0x2112A442u
#define die(...)                                                                                   \
    do {                                                                                           \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fprintf(stderr, " (%s)\n", strerror(errno));                                               \
        exit(1);                                                                                   \
    } while (0)
typedef union {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} addr_t;
typedef struct {
    int fd, state, tries;
    uint8_t tid[12];
    uint64_t t_tx;
    char nonce[160];
    int nonce_len;
    addr_t relay;
    uint8_t req[600];
    int req_len;
} cl_t;
static cl_t *cl;
static int N = 1, K = 1, L = 172, burst = 1, gso = 0, direct = 0, verbose = 0, pin = -1, conc = 64,
           alloc_only = 0;
static double rate = 0, dur = 3;
static int window = 0, search = 0, ind = 0, dir = 1;
static addr_t srv, cbind, peer0;
static addr_t *peers;
static int *pfd;
static char user[256] = "u", pass[256] = "p", realm[256];
static uint8_t key[16];
static int have_key = 0;
static const char *outf;
static const char *nsA, *nsB;
static int pids[16], npid = 0;
static double hold = 0, warm = 0;
static int ep;
static uint32_t trial;
static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}
static socklen_t alen(addr_t *a) {
    return a->sa.sa_family == AF_INET ? sizeof a->v4 : sizeof a->v6;
}
static void setport(addr_t *a, int p) {
    if (a->sa.sa_family == AF_INET)
        a->v4.sin_port = htons(p);
    else
        a->v6.sin6_port = htons(p);
}
static void parse(const char *s, addr_t *a, int defport) {
    char b[128];
    snprintf(b, sizeof b, "%s", s);
    int port = defport;
    char *at = strchr(b, '@');
    if (at) {
        *at = 0;
        port = atoi(at + 1);
    }
    memset(a, 0, sizeof *a);
    if (inet_pton(AF_INET6, b, &a->v6.sin6_addr) == 1) {
        a->v6.sin6_family = AF_INET6;
        a->v6.sin6_port = htons(port);
        return;
    }
    char *c = strchr(b, ':');
    if (c) {
        *c = 0;
        port = atoi(c + 1);
    }
    if (inet_pton(AF_INET, b, &a->v4.sin_addr) != 1)
        die("bad addr %s", s);
    a->v4.sin_family = AF_INET;
    a->v4.sin_port = htons(port);
}
static void enterns(const char *n) {
    if (!n)
        return;
    char p[256];
    snprintf(p, sizeof p, "/var/run/netns/%s", n);
    int f = open(p, O_RDONLY);
    if (f < 0 || setns(f, CLONE_NEWNET))
        die("setns %s", n);
    close(f);
}
// ---- STUN
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
static uint64_t rs = 88172645463325252ull;
static uint64_t rnd(void) {
    rs ^= rs << 13;
    rs ^= rs >> 7;
    rs ^= rs << 17;
    return rs;
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
    if (c->state > 0) {
        p = attr(p, 6, user, strlen(user));
        p = attr(p, 0x14, realm, strlen(realm));
        p = attr(p, 0x15, c->nonce, c->nonce_len);
        int ml = p - b - 20 + 24;
        b[2] = ml >> 8;
        b[3] = ml;
        uint8_t h[20];
        unsigned hl;
        HMAC(EVP_sha1(), key, 16, b, p - b, h, &hl);
        p = attr(p, 8, h, 20);
    }
    int ml = p - b - 20;
    b[2] = ml >> 8;
    b[3] = ml;
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
        p = attr(p, 6, user, strlen(user));
        p = attr(p, 0x14, realm, strlen(realm));
        p = attr(p, 0x15, c->nonce, c->nonce_len);
        int ml = p - b - 20 + 24;
        b[2] = ml >> 8;
        b[3] = ml;
        uint8_t h[20];
        unsigned hl;
        HMAC(EVP_sha1(), key, 16, b, p - b, h, &hl);
        p = attr(p, 8, h, 20);
        send(c->fd, b, p - b, 0);
        if (i % 32 == 31)
            usleep(3000);
    }
    usleep(50000);
}
// ---- cpu accounting
typedef struct {
    double busy[8];
    double proc, sched;
    long rss;
    double t;
    double soft[8];
} cpu_t;
static void cpuread(cpu_t *c) {
    memset(c, 0, sizeof *c);
    c->t = now() / 1e9;
    FILE *f = fopen("/proc/stat", "r");
    char ln[512];
    double hz = sysconf(_SC_CLK_TCK);
    while (fgets(ln, sizeof ln, f)) {
        int id;
        double u, n, s, i, w, q, sq;
        if (sscanf(ln, "cpu%d %lf %lf %lf %lf %lf %lf %lf", &id, &u, &n, &s, &i, &w, &q, &sq) ==
                8 &&
            id < 8) {
            c->busy[id] = -(i + w) / hz;
            c->soft[id] = sq / hz;
        }
    }
    fclose(f);
    for (int k = 0; k < npid; k++) {
        char p[300];
        snprintf(p, sizeof p, "/proc/%d/stat", pids[k]);
        f = fopen(p, "r");
        if (!f)
            continue;
        if (fgets(ln, sizeof ln, f)) {
            char *q = strrchr(ln, ')');
            double ut, st;
            if (q &&
                sscanf(q + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lf %lf", &ut, &st) == 2)
                c->proc += (ut + st) / hz;
        }
        fclose(f);
        snprintf(p, sizeof p, "/proc/%d/statm", pids[k]);
        f = fopen(p, "r");
        long a, b;
        if (f && fscanf(f, "%ld %ld", &a, &b) == 2)
            c->rss += b * 4;
        if (f)
            fclose(f);
        snprintf(p, sizeof p, "/proc/%d/task", pids[k]);
        DIR *d = opendir(p);
        struct dirent *e;
        while (d && (e = readdir(d))) {
            if (e->d_name[0] == '.')
                continue;
            char q[600];
            snprintf(q, sizeof q, "%s/%s/schedstat", p, e->d_name);
            FILE *g = fopen(q, "r");
            unsigned long long ns;
            if (g && fscanf(g, "%llu", &ns) == 1)
                c->sched += ns / 1e9;
            if (g)
                fclose(g);
        }
        if (d)
            closedir(d);
    }
}
// ---- traffic
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
static uint8_t rb[64][2048];
static struct mmsghdr rm[64];
static struct iovec ri[64];
static int drain(int tmo) {
    struct epoll_event ev[128];
    int n = epoll_wait(ep, ev, 128, tmo), tot = 0;
    for (int e = 0; e < n; e++) {
        int id = ev[e].data.u32;
        int fd = id < N ? cl[id].fd : pfd[id - N];
        int r;
        int loops = 0;
        do {
            r = recvmmsg(fd, rm, id < N ? 32 : 64, MSG_DONTWAIT, 0);
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
        } while (r == (id < N ? 32 : 64) && ++loops < 4);
    }
    return tot;
}
static int ci = 0, pi = 0;
static int hdr;
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
        if (gso > 1) {
            n = gso;
            static uint8_t big[65536];
            int o = 0, tl = 0;
            for (int k = 0; k < n; k++) {
                tl = fill(0, i, 1, t);
                memcpy(big + o, tb[0], tl);
                o += tl;
            }
            char cb[CMSG_SPACE(2)] = {0};
            struct iovec v = {big, o};
            struct msghdr m = {
                .msg_iov = &v, .msg_iovlen = 1, .msg_control = cb, .msg_controllen = sizeof cb};
            struct cmsghdr *c = CMSG_FIRSTHDR(&m);
            c->cmsg_level = 17;
            c->cmsg_type = UDP_SEGMENT;
            c->cmsg_len = CMSG_LEN(2);
            *(uint16_t *)CMSG_DATA(c) = tl;
            if (sendmsg(cl[i].fd, &m, MSG_DONTWAIT) < 0) {
                sfail += n;
                return 0;
            }
            sent += n;
            return n;
        }
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
    int m = want < 64 ? want : 64;
    if (m < 1)
        m = 1;
    if (K > 1)
        m = burst < want ? burst : want;
    if (m < 1)
        m = 1;
    if (gso > 1) {
        int i = pi;
        pi = (pi + 1) % N;
        static uint8_t big[65536];
        int o = 0, tl = 0;
        for (int k = 0; k < gso; k++) {
            tl = fill(0, i, 0, t);
            memcpy(big + o, tb[0], tl);
            o += tl;
        }
        char cb[CMSG_SPACE(2)] = {0};
        struct iovec v = {big, o};
        struct msghdr mh = {.msg_iov = &v,
                            .msg_iovlen = 1,
                            .msg_control = cb,
                            .msg_controllen = sizeof cb,
                            .msg_name = &cl[i].relay,
                            .msg_namelen = alen(&cl[i].relay)};
        struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
        c->cmsg_level = 17;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(2);
        *(uint16_t *)CMSG_DATA(c) = tl;
        if (sendmsg(pfd[i % K], &mh, MSG_DONTWAIT) < 0) {
            sfail += gso;
            return 0;
        }
        sent += gso;
        return gso;
    }
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
typedef struct {
    double offered, deliv, loss, p50, p99, p999, c0, c1, proc, sched, nsproc, ns0, ns1;
    uint64_t bad, sfail;
    long rss;
} res_t;
static double pct(double q) {
    uint64_t a = 0, t = q * hcnt;
    for (int i = 0; i < HB; i++) {
        a += hist[i];
        if (a > t)
            return i * 0.1;
    }
    return HB * 0.1;
}
static double selfcpu(void) { // this process's own CPU, softirqs on its back included; no other's
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}
static res_t blast(double r, int w, double secs) {
    trial++;
    sent = rcvd = rcv_c = rcv_p = bad = sfail = hcnt = 0;
    memset(hist, 0, sizeof hist);
    cpu_t a, b;
    while (drain(0) > 0)
        ;
    cpuread(&a);
    double self = selfcpu();
    uint64_t t0 = now(), tend = t0 + secs * 1e9, lastprog = t0;
    uint64_t lost = 0, lastr = 0;
    int flip = 0;
    for (;;) {
        uint64_t t = now();
        if (t >= tend)
            break;
        int64_t due;
        if (w) {
            due = (int64_t)w - (int64_t)(sent - rcvd - lost);
            if (rcvd != lastr) {
                lastr = rcvd;
                lastprog = t;
            } else if (due <= 0 && t - lastprog > 20000000) {
                lost = sent - rcvd;
                lastprog = t;
            }
        } else if (r > 0) {
            due = (int64_t)((t - t0) / 1e9 * r) - (int64_t)sent;
        } else
            due = 256;
        if (due > 256)
            due = 256;
        int cap = 256;
        while (due > 0 && cap > 0) {
            int c2p = dir == 1 || (dir == 3 && (flip ^= 1));
            if (dir == 3 && !c2p) {
                int x = burst > 1 ? burst : 1;
                int n = sendsome(0, x < due ? x : due);
                if (!n)
                    break;
                due -= n;
                cap -= n;
            } else {
                int n = sendsome(c2p, due);
                if (!n)
                    break;
                due -= n;
                cap -= n;
            }
        }
        drain(0);
    }
    uint64_t t1 = now();
    self = selfcpu() - self;
    cpuread(&b);
    uint64_t rc = rcvd;
    double el = (t1 - t0) / 1e9;
    uint64_t dl = now() + 200000000ull;
    while (now() < dl && rcvd < sent)
        drain(1);
    res_t x = {0};
    x.offered = sent / el;
    x.deliv = rc / el;
    x.loss = sent ? 100.0 * (double)(int64_t)(sent - rcvd) / sent : 0;
    x.p50 = pct(.5);
    x.p99 = pct(.99);
    x.p999 = pct(.999);
    double wl = b.t - a.t;
    x.c0 = wl + b.busy[0] - a.busy[0];
    x.c1 = wl + b.busy[1] - a.busy[1];
    x.proc = b.proc - a.proc;
    x.sched = b.sched - a.sched;
    x.bad = bad;
    x.sfail = sfail;
    x.rss = b.rss;
    double pk = rc ? rc : 1;
    x.nsproc = x.sched / pk * 1e9;
    x.ns0 = x.c0 / pk * 1e9;
    x.ns1 = x.c1 / pk * 1e9;
    printf("RES off=%.0f del=%.0f loss=%.3f%% p50=%.1f p99=%.1f p999=%.1fus | cpu0=%.2f cpu1=%.2f "
           "proc=%.2f(%.2f) of %.2fs | ns/pkt proc=%.0f self=%.0f cpu0=%.0f cpu1=%.0f | rss=%ldK bad=%lu "
           "sfail=%lu rc=%lu rp=%lu ind=%lu lost=%ld\n",
           x.offered, x.deliv, x.loss, x.p50, x.p99, x.p999, x.c0, x.c1, x.proc, x.sched, el,
           x.nsproc, self / pk, x.ns0, x.ns1, x.rss, bad, sfail, rcv_c, rcv_p, drained_ind,
           (long)(sent - rcvd));
    fflush(stdout);
    return x;
}
int main(int ac, char **av) {
    int o;
    parse("127.0.0.1", &cbind, 0);
    parse("127.0.0.1", &peer0, 0);
    parse("127.0.0.1:3478", &srv, 3478);
    while ((o = getopt(ac, av, "s:u:w:n:l:D:m:r:W:Sd:b:g:c:p:K:A:B:P:k:XH:C:Nvo:Z:")) > 0)
        switch (o) {
        case 's':
            parse(optarg, &srv, 3478);
            break;
        case 'u':
            snprintf(user, 256, "%s", optarg);
            break;
        case 'w':
            snprintf(pass, 256, "%s", optarg);
            break;
        case 'n':
            N = atoi(optarg);
            break;
        case 'l':
            L = atoi(optarg);
            break;
        case 'D':
            dir = !strcmp(optarg, "c2p") ? 1 : !strcmp(optarg, "p2c") ? 2 : 3;
            break;
        case 'm':
            ind = !strcmp(optarg, "ind");
            break;
        case 'r':
            rate = atof(optarg);
            break;
        case 'W':
            window = atoi(optarg);
            break;
        case 'S':
            search = 1;
            break;
        case 'd':
            dur = atof(optarg);
            break;
        case 'b':
            burst = atoi(optarg);
            break;
        case 'g':
            gso = atoi(optarg);
            break;
        case 'c':
            parse(optarg, &cbind, 0);
            break;
        case 'p':
            parse(optarg, &peer0, 0);
            break;
        case 'K':
            K = atoi(optarg);
            break;
        case 'A':
            nsA = optarg;
            break;
        case 'B':
            nsB = optarg;
            break;
        case 'P': {
            char *s = strtok(optarg, ",");
            while (s && npid < 16) {
                pids[npid++] = atoi(s);
                s = strtok(0, ",");
            }
            break;
        }
        case 'k':
            pin = atoi(optarg);
            break;
        case 'X':
            direct = 1;
            break;
        case 'H':
            hold = atof(optarg);
            break;
        case 'C':
            conc = atoi(optarg);
            break;
        case 'N':
            alloc_only = 1;
            break;
        case 'Z':
            warm = atof(optarg);
            break;
        case 'v':
            verbose = 1;
            break;
        case 'o':
            outf = optarg;
            break;
        default:
            exit(1);
        }
    if (K > N)
        K = N;
    if (burst > 64)
        burst = 64;
    if (pin >= 0) {
        cpu_set_t s;
        CPU_ZERO(&s);
        CPU_SET(pin, &s);
        sched_setaffinity(0, sizeof s, &s);
    }
    struct rlimit rl = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &rl);
    cl = calloc(N, sizeof *cl);
    peers = calloc(K, sizeof *peers);
    pfd = calloc(K, sizeof(int));
    tb = calloc(64, 2048);
    tm = calloc(64, sizeof *tm);
    ti = calloc(64, sizeof *ti);
    for (int k = 0; k < 64; k++) {
        tm[k].msg_hdr.msg_iov = &ti[k];
        tm[k].msg_hdr.msg_iovlen = 1;
        ri[k].iov_base = rb[k];
        ri[k].iov_len = 2048;
        rm[k].msg_hdr.msg_iov = &ri[k];
        rm[k].msg_hdr.msg_iovlen = 1;
    }
    rs ^= now(); // no transaction of an earlier run, whose replies the server still keeps
    ep = epoll_create1(0);
    int sz = 64 << 20, csz = 1 << 20;
    enterns(nsB);
    for (int k = 0; k < K; k++) {
        addr_t a = peer0;
        pfd[k] = socket(a.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (bind(pfd[k], &a.sa, alen(&a)))
            die("bind peer");
        setsockopt(pfd[k], SOL_SOCKET, SO_RCVBUFFORCE, &sz, 4);
        setsockopt(pfd[k], SOL_SOCKET, SO_SNDBUFFORCE, &csz, 4);
        socklen_t l = sizeof a;
        getsockname(pfd[k], &a.sa, &l);
        peers[k] = a;
        struct epoll_event e = {EPOLLIN, {.u32 = N + k}};
        epoll_ctl(ep, EPOLL_CTL_ADD, pfd[k], &e);
    }
    enterns(nsA);
    for (int i = 0; i < N; i++)
        mkclient(i);
    if (!direct) {
        cpu_t a, b;
        cpuread(&a);
        allocate();
        cpuread(&b);
        printf("ALLOCCPU proc=%.3fs per_alloc=%.1fus rss %ldK -> %ldK = %.2f KiB/alloc\n",
               b.sched - a.sched, (b.sched - a.sched) / N * 1e6, a.rss, b.rss,
               (b.rss - a.rss) / (double)N);
        if (srv.sa.sa_family == AF_INET && cl[0].relay.sa.sa_family == AF_INET)
            for (int i = 0; i < N; i++)
                if (!cl[i].relay.v4.sin_addr.s_addr)
                    cl[i].relay.v4.sin_addr = srv.v4.sin_addr;
    }
    if (outf) {
        FILE *f = fopen(outf, "w");
        for (int i = 0; i < N; i++) {
            addr_t a;
            socklen_t l = sizeof a;
            getsockname(cl[i].fd, &a.sa, &l);
            fprintf(f, "%d %d %d\n", ntohs(a.v4.sin_port), ntohs(cl[i].relay.v4.sin_port),
                    ntohs(peers[i % K].v4.sin_port));
        }
        fclose(f);
    }
    fflush(stdout);
    if (hold > 0)
        usleep(hold * 1e6);
    if (alloc_only) {
        release();
        return 0;
    }
    if (search) { // bisect
        double lo = 0, hi = rate > 0 ? rate : 2e6;
        res_t best = {0};
        double T = dur;
        for (int k = 0; k < 9; k++) {
            double mid = k == 0 ? hi : (lo + hi) / 2;
            res_t x = blast(mid, 0, T);
            if (x.offered < mid * 0.97) {
                printf("  (generator lag: offered %.0f of %.0f)\n", x.offered, mid);
            }
            if (x.loss < 0.1) {
                if (x.deliv > best.deliv)
                    best = x;
                lo = x.offered > mid * 0.97 ? mid : x.offered;
                if (k == 0 && x.offered >= mid * 0.97) {
                    hi = mid * 2;
                    lo = mid;
                }
                if (x.offered < mid * 0.97) {
                    hi = mid;
                    if (lo > hi * 0.95)
                        break;
                }
            } else
                hi = mid < x.offered ? mid : x.offered < mid * 0.97 ? x.offered : mid;
            if (hi - lo < 0.04 * hi)
                break;
            usleep(100000);
        }
        printf("BEST del=%.0f loss=%.3f%% p50=%.1f p99=%.1f cpu0ns=%.0f procns=%.0f cpu0=%.2f\n",
               best.deliv, best.loss, best.p50, best.p99, best.ns0, best.nsproc, best.c0 / T);
    } else {
        if (warm > 0) // printed too: the last line counts
            blast(rate, window, warm);
        blast(rate, window, dur);
    }
    if (!direct)
        release();
    return 0;
}
