#include "guest.h"

/*
 * Every sector written says where it belongs and which write of which run it is from, and the rest of it follows from
 * that. At most one request is in flight for a block, so what a read may find is known: the last write that was
 * acknowledged, or one issued after it that failed.
 */
struct sector {
	u64 magic, lba, epoch;
	u32 disk, seq;
	u64 filler[60];
};

struct verify {
	u64 area, stride; /* blocks 0, stride, 2 * stride, ... (area - 1) * stride are used */
	u32 *issued, *acked;
	bool *busy;
};

#define MAGIC 0x6b73696462626521 /* "!ebbdisk" */
#define MAX_AREA 16384

u64 verify_good, verify_bad;

void verify_start(struct disk *d)
{
	struct verify *v = allocate(sizeof *v, 64);
	v->area = d->blocks < MAX_AREA ? d->blocks : MAX_AREA;
	v->stride = d->blocks / v->area;
	v->issued = allocate(v->area * sizeof *v->issued, 64);
	v->acked = allocate(v->area * sizeof *v->acked, 64);
	v->busy = allocate(v->area * sizeof *v->busy, 64);
	d->verify = v;
}

bool verify_choose(struct disk *d, u64 *block)
{
	struct verify *v = d->verify;
	u64 at = random_below(&d->random, v->area);
	for (u64 i = 0; i < v->area; i++) { /* one of them is free: there are at least as many as requests */
		if (!v->busy[at]) {
			*block = at * v->stride;
			return true;
		}
		if (++at == v->area)
			at = 0;
	}
	return false;
}

static void fill(struct sector *s, u32 disk, u64 lba, u32 seq)
{
	u64 random = (opt.seed ^ lba << 24 ^ (u64)disk << 56 ^ seq) | 1;
	*s = (struct sector){ .magic = MAGIC, .lba = lba, .epoch = opt.seed, .disk = disk, .seq = seq };
	for (u32 i = 0; i < 60; i++)
		s->filler[i] = random_next(&random);
}

static bool intact(const struct sector *s, u32 disk, u64 lba, u32 oldest, u32 newest)
{
	if (s->magic != MAGIC || s->lba != lba || s->epoch != opt.seed || s->disk != disk || s->seq < oldest || s->seq > newest)
		return false;
	u64 random = (opt.seed ^ lba << 24 ^ (u64)disk << 56 ^ s->seq) | 1;
	for (u32 i = 0; i < 60; i++)
		if (s->filler[i] != random_next(&random))
			return false;
	return true;
}

static struct sector *data(struct disk *d, u32 slot) { return (struct sector *)(d->data + (u64)slot * opt.size); }

void verify_submit(struct disk *d, u32 slot)
{
	struct request *r = d->requests + slot;
	struct verify *v = d->verify;
	u64 at = r->block / v->stride;
	if (r->type == BLK_FLUSH)
		return;
	v->busy[at] = true;
	if (r->type == BLK_OUT)
		v->issued[at]++;
	for (u32 i = 0; i < opt.size / 512; i++) {
		if (r->type == BLK_OUT)
			fill(data(d, slot) + i, d->index, r->block * (opt.size / 512) + i, v->issued[at]);
		else
			data(d, slot)[i].magic = 0; /* so that a read which moves nothing is found out */
	}
}

void verify_done(struct disk *d, u32 slot, bool ok)
{
	struct request *r = d->requests + slot;
	struct verify *v = d->verify;
	u64 at = r->block / v->stride;
	if (r->type == BLK_FLUSH)
		return;
	v->busy[at] = false;
	if (!ok)
		return;
	if (r->type == BLK_OUT) {
		v->acked[at] = v->issued[at];
		return;
	}
	if (!v->acked[at])
		return; /* never written: it may hold anything */
	for (u32 i = 0; i < opt.size / 512; i++) {
		const struct sector *s = data(d, slot) + i;
		u64 lba = r->block * (opt.size / 512) + i;
		if (intact(s, d->index, lba, v->acked[at], v->issued[at]))
			continue;
		if (verify_bad++ < 8)
			queue_line("diskbench: MISMATCH disk %u sector %U: found disk %u sector %U seq %u epoch %x, expected seq %u to %u epoch %x",
				d->index, lba, s->disk, s->lba, s->seq, s->epoch, v->acked[at], v->issued[at], opt.seed);
		return;
	}
	verify_good++;
}

bool verify_next_unread(struct disk *d, u64 *cursor, u64 *block)
{
	struct verify *v = d->verify;
	for (; *cursor < v->area; ++*cursor) {
		if (v->acked[*cursor]) {
			*block = (*cursor)++ * v->stride;
			return true;
		}
	}
	return false;
}
