// A TURN client that is many: what a packet and an allocation cost a relay, whichever it is.
// `loadgen.py` builds and runs it; `load.h` says what each option means.
//
// loadgen -s IP[:PORT] (or IPv6@PORT) -u USER -w PASS -n CLIENTS [-N (allocate only)]
//   [-l BYTES] [-D c2p|p2c|both] [-m chan|ind] [-r PACKETS_A_SECOND | -W WINDOW] [-d SECONDS]
//   [-Z WARM_UP_SECONDS] [-b BURST] [-c CLIENT_IP] [-p PEER_IP] [-K PEER_SOCKETS]
//   [-A CLIENT_NETNS] [-B PEER_NETNS] [-P RELAY_PID[,PID…]] [-k CPU] [-C AT_A_TIME] [-X] [-v]
#include "load_clients.h"
#include "load_cpu.h"
#include "load_packets.h"

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

static void blast(double r, int w, double secs) {
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
}

static void options(int ac, char **av) {
    int o;
    parse("127.0.0.1", &cbind, 0);
    parse("127.0.0.1", &peer0, 0);
    parse("127.0.0.1:3478", &srv, 3478);
    while ((o = getopt(ac, av, "s:u:w:n:l:D:m:r:W:d:b:c:p:K:A:B:P:k:XC:NvZ:")) > 0)
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
        case 'd':
            dur = atof(optarg);
            break;
        case 'b':
            burst = atoi(optarg);
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
        default:
            exit(1);
        }
    if (K > N)
        K = N;
    if (burst > MOST_AT_ONCE)
        burst = MOST_AT_ONCE;
}

static void make_room(void) {
    cl = calloc(N, sizeof *cl);
    peers = calloc(K, sizeof *peers);
    pfd = calloc(K, sizeof(int));
    tb = calloc(MOST_AT_ONCE, 2048);
    tm = calloc(MOST_AT_ONCE, sizeof *tm);
    ti = calloc(MOST_AT_ONCE, sizeof *ti);
    for (int k = 0; k < MOST_AT_ONCE; k++) {
        tm[k].msg_hdr.msg_iov = &ti[k];
        tm[k].msg_hdr.msg_iovlen = 1;
        ri[k].iov_base = rb[k];
        ri[k].iov_len = 2048;
        rm[k].msg_hdr.msg_iov = &ri[k];
        rm[k].msg_hdr.msg_iovlen = 1;
    }
}

static void mkpeers(void) {
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
}

int main(int ac, char **av) {
    options(ac, av);
    if (pin >= 0) {
        cpu_set_t s;
        CPU_ZERO(&s);
        CPU_SET(pin, &s);
        sched_setaffinity(0, sizeof s, &s);
    }
    struct rlimit rl = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &rl);
    make_room();
    rs ^= now(); // no transaction of an earlier run, whose replies the server still keeps
    ep = epoll_create1(0);
    mkpeers();
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
    fflush(stdout);
    if (alloc_only) {
        release();
        return 0;
    }
    if (warm > 0) // printed too: the last line counts
        blast(rate, window, warm);
    blast(rate, window, dur);
    if (!direct)
        release();
    return 0;
}
