/* SPDX-License-Identifier: Apache-2.0
 *
 * The road of a packet of one address family: included once for IPv4 and once for IPv6, with FAMILY,
 * the family's number in STUN, and how its IP header is judged (is_plain) and rewritten (readdress).
 */
#define JOINED(stem, family) stem##family
#define JOIN(stem, family) JOINED(stem, family)
#define OF(stem) JOIN(stem, FAMILY)
#define INDICATION ((__u32)JOIN(INDICATION, FAMILY))
#define START (ETHERNET + (__u32)sizeof(struct OF(head)))
#define COPY(to, from) __builtin_memcpy(to, from, sizeof(to))

/* Source and destination lie side by side in both families. */
INLINE __u64 OF(sum_of_addresses)(const struct OF(head) *head)
{
    const __u32 *words = (void *)&head->ip.saddr;
    __u64 sum = 0;
#pragma unroll
    for (__u32 i = 0; i < 2 * sizeof head->ip.saddr / 4; i++)
        sum += words[i];
    return sum;
}

/* The sum of the pseudo header: what stands in the place of a checksum that a device is to compute. */
INLINE __u16 OF(pseudo_sum)(const struct OF(head) *head)
{
    return fold(OF(sum_of_addresses)(head) + head->udp.len + htons(IPPROTO_UDP));
}

/* The UDP header as it leaves, checksum corrected by what changes (RFC 1624). */
INLINE void OF(rewrite_udp)(const struct OF(head) *old, struct OF(head) *new,
                            const struct OF(way) *way, const struct step *step)
{
    const struct udphdr *before = &old->udp;
    struct udphdr *after = &new->udp;
    after->source = way->new_source_port;
    after->dest = way->new_destination_port;
    after->len = htons(length_after(step));
    after->check = 0;
    if (!before->check)
        return;
    __u64 sum = GONE16(before->check) + step->sum + OF(sum_of_addresses)(new);
    sum += GONE16(fold(OF(sum_of_addresses)(old)));
    sum += GONE16(before->source) + GONE16(before->dest) + 2 * GONE16(before->len);
    sum += (__u64)after->source + after->dest + 2 * (__u64)after->len;
    sum = (__u16)~fold(sum);
    after->check = sum ? sum : 0xffff;
}

/* The sum of products of pairs (NH, which UMAC is made of): two keys meet as rarely as can be, so
 * long as nobody knows the seed. */
INLINE __u64 OF(hash)(const struct OF(key) *key, const struct seed *seed)
{
    const __u32 *words = (void *)key, *secret = seed->words;
    const __u32 plain = offsetof(struct OF(key), peer) / 4, all = sizeof *key / 4;
    __u64 sum = 0;
#pragma unroll
    for (__u32 i = 0; i < plain; i += 2)
        sum += (__u64)(__u32)(words[i] + secret[i]) * (__u32)(words[i + 1] + secret[i + 1]);
    if (key->channel == htons(NAMED)) {
#pragma unroll
        for (__u32 i = plain; i < all; i += 2)
            sum += (__u64)(__u32)(words[i] + secret[i]) * (__u32)(words[i + 1] + secret[i + 1]);
    }
    return (sum ^ sum >> 32) * MIX;
}

INLINE int OF(is_way_of)(const struct OF(key) *key, const struct OF(way) *way)
{
    if (way->source_port != key->source_port || way->destination_port != key->destination_port ||
        way->channel != key->channel)
        return 0;
#pragma unroll
    for (__u32 i = 0; i < sizeof key->source / 4; i++)
        if (way->source[i] != key->source[i] || way->destination[i] != key->destination[i])
            return 0;
    return 1;
}

/* Whether the peer is the same, where the packet names one. */
INLINE int OF(is_to_peer_of)(const struct OF(key) *key, const struct OF(rest) *rest)
{
    if (key->channel != htons(NAMED))
        return 1;
#pragma unroll
    for (__u32 i = 0; i < sizeof key->peer / 4; i++)
        if (rest->header[i] != key->peer[i])
            return 0;
    return *(__be16 *)&rest->header[sizeof key->peer / 4] == key->peer_port;
}

/* The way of a packet, and the rest of it; or 0. */
INLINE struct OF(way) *OF(find)(const struct OF(key) *key, struct OF(rest) **rest)
{
    __u32 zero = 0;
    struct seed *seed = lookup(&seeds, &zero);
    if (!seed)
        return 0;
    __u64 hash = OF(hash)(key, seed);
    for (__u32 i = 0; i < 2 * ROW; i++) {
        __u32 first = (i < ROW ? hash >> FIRST_PLACE : hash >> SECOND_PLACE) & (seed->OF(places) - 1);
        __u32 place = first ^ i % ROW;
        struct OF(way) *way = lookup(&OF(ways), &place);
        if (!way || !OF(is_way_of)(key, way))
            continue;
        *rest = lookup(&OF(rests), &place);
        if (*rest && OF(is_to_peer_of)(key, *rest))
            return way;
    }
    return 0;
}

/* The same of a packet that would come from a peer. */
INLINE struct OF(way) *OF(find_next)(const struct OF(way) *way, struct OF(rest) **rest)
{
    struct OF(key) key = {
        .source_port = way->new_source_port,
        .destination_port = way->new_destination_port,
    };
    COPY(key.source, way->new_source);
    COPY(key.destination, way->new_destination);
    return OF(find)(&key, rest);
}

/* Whom a Send indication names; 0: it is not of the plain shape. */
INLINE int OF(read_send)(context *ctx, const struct OF(head) *old, struct OF(key) *key,
                         struct step *step)
{
    void *data;
    if (!view(ctx, START + INDICATION, &data))
        return 0;
    const struct stun *head = data + START;
    const __be32 *words = data + START;
    step->taken_front = INDICATION;
    if (!is_plain_send(head, data + START + INDICATION - PAD, STUN_FAMILY, ntohs(old->udp.len), step))
        return 0;
    key->channel = htons(NAMED);
    key->peer_port = head->port ^ htons(COOKIE >> 16);
#pragma unroll
    for (__u32 i = 0; i < sizeof key->peer / 4; i++) /* masked by cookie and transaction id */
        key->peer[i] = words[sizeof *head / 4 + i] ^ words[1 + i];
    step->sum = 0;
#pragma unroll
    for (__u32 i = 0; i < INDICATION / 4; i++)
        step->sum += GONE(words[i]);
    if (step->taken_tail) { /* padding, which may hold anything */
        __u32 word, kept = PAD - step->taken_tail;
        if (load(ctx, START + INDICATION + step->payload - kept, &word, sizeof word))
            return 0;
        step->sum += GONE(word >> 8 * kept << 8 * kept);
    }
    step->taken_tail = veiled(step->taken_tail, veil(head->port));
    __u32 behind = ntohs(old->udp.len) - UDP - INDICATION - step->payload - step->taken_tail;
    if (behind) {
        __u64 gone = 0;
        if (behind == FINGERPRINT_BYTES)
            gone = fingerprint_of(ctx, START, ntohs(old->udp.len) - UDP);
        if (!gone)
            return 0;
        step->taken_tail += behind;
        step->sum += gone;
    }
    return 1;
}

INLINE void OF(wrap)(const struct OF(way) *way, const struct OF(rest) *rest, struct step *step)
{
    if (way->wrap)
        wrap_in_channel(way->wrap, step);
    else
        wrap_in_indication(rest->header, INDICATION, step);
}

/* Write what stands before the payload, and who gets it. 0: it cannot be. */
INLINE int OF(write)(context *ctx, const struct OF(head) *new, const struct OF(way) *way,
                     const struct OF(rest) *rest, const struct step *step, const struct hop *ahead)
{
    void *data;
    if (!step->put_front) {
        if (!view(ctx, START, &data))
            return 0;
    } else if (way->wrap) {
        if (!view(ctx, START + CHANNEL, &data))
            return 0;
        __be16 *header = data + START;
        header[0] = way->wrap;
        header[1] = htons(step->payload);
    } else {
        if (!view(ctx, START + INDICATION, &data))
            return 0;
        struct stun *header = data + START;
        struct data *last = data + START + INDICATION - PAD;
        __builtin_memcpy(header, rest->header, INDICATION);
        header->length = htons(INDICATION - STUN + step->payload + step->put_tail);
        last->length = htons(step->payload);
    }
    *(struct OF(head) *)(data + ETHERNET) = *new;
    ((struct ethhdr *)data)->h_proto = htons(FAMILY == 4 ? ETH_P_IP : ETH_P_IPV6);
    if (ahead->road != LOCAL)
        __builtin_memcpy(data, ahead->head, sizeof ahead->head);
    return 1;
}

INLINE int OF(pay)(const struct OF(way) *way, const struct OF(rest) *rest, __u32 payload)
{
    return way->behind & LIMITED ? charge(rest->buckets, payload) : TAKEN;
}

INLINE void OF(count)(struct OF(way) *way, __u32 payload)
{
    __sync_fetch_and_add(&way->TALLY, 1);
    __sync_fetch_and_add(&way->bytes, payload);
}

INLINE int OF(relay)(context *ctx)
{
    void *data;
    if (!view(ctx, START + CHANNEL, &data) || !OF(is_plain)(ctx, data + ETHERNET))
        return UP;
    struct OF(head) old = *(struct OF(head) *)(data + ETHERNET), new;
    struct OF(key) key = {.source_port = old.udp.source, .destination_port = old.udp.dest};
    struct step step = {};
    COPY(key.source, &old.ip.saddr);
    COPY(key.destination, &old.ip.daddr);
    int is_from_client = is_listening(old.udp.dest);
    if (is_from_client) {
        if (*(__be16 *)(data + START) != htons(NAMED))
            key.channel = unwrap_channel(data + START, ntohs(old.udp.len), &step);
        else if (!OF(read_send)(ctx, &old, &key, &step))
            return UP;
        if (!key.channel)
            return UP;
    }
    struct OF(rest) *rest, *next_rest = 0;
    struct OF(way) *way = OF(find)(&key, &rest), *next = 0;
    if (!way)
        return UP;
    if (!is_from_client) {
        step.payload = ntohs(old.udp.len) - UDP;
        OF(wrap)(way, rest, &step);
    } else if (is_local(way->ahead)) {
        /* The peer may be a client of this relay: what would come out there, at once. */
        next = OF(find_next)(way, &next_rest);
        if (next)
            OF(wrap)(next, next_rest, &step);
    }
    veil_step(&step, veil(old.udp.source));
    struct OF(way) *last = next ? next : way;
    struct OF(rest) *last_rest = next ? next_rest : rest;
    __u64 now = coarse_now();
    if (way->expires <= now || last->expires <= now || !came_from(ctx, way->behind))
        return UP;
    struct hop *ahead = next_hop(ctx, last->ahead, sizeof old.ip + length_after(&step));
    if (!ahead || !can_leave(ahead))
        return UP;
    /* A checksum that a device is still to compute stands for the pseudo header alone. */
    if (!TELLS_PARTIAL && old.udp.check == OF(pseudo_sum)(&old))
        return UP;
    int paid = OF(pay)(way, rest, step.payload);
    if (paid == TAKEN && next) {
        paid = OF(pay)(next, next_rest, step.payload);
        if (paid == EMPTY) /* the one has sent it, the other may not have it */
            OF(count)(way, step.payload);
    }
    if (paid != TAKEN)
        return paid == EMPTY ? LOST : UP;
    __u16 doubtful = TELLS_PARTIAL && old.udp.check == OF(pseudo_sum)(&old) ? old.udp.check : 0;
    OF(readdress)(&old, &new, last, &step);
    OF(rewrite_udp)(&old, &new, last, &step);
    int resized = resize(ctx, ETHERNET + offsetof(struct OF(head), udp.check), doubtful, &step);
    if (resized == UNCHANGED)
        return UP;
    if (resized == PSEUDO)
        new.udp.check = OF(pseudo_sum)(&new);
    if (resized == SPOILED || !OF(write)(ctx, &new, last, last_rest, &step, ahead)) {
        __sync_fetch_and_add(&rest->spoiled, 1);
        return LOST;
    }
    OF(count)(way, step.payload);
    if (next)
        OF(count)(next, step.payload);
    return leave(ahead);
}

#undef START
#undef INDICATION
#undef COPY
#undef OF
#undef JOIN
#undef JOINED
