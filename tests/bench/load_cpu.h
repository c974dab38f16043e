// What processors and the relay's processes have spent, as /proc has it.
#pragma once

#include "load.h"
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
        long resident, shared; /* with the kernel (a BPF map), or files: there before, and only seen */
        if (f && fscanf(f, "%*d %ld %ld", &resident, &shared) == 2)
            c->rss += (resident - shared) * 4;
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
