#include "guest.h"

static struct disk *disks;
static u32 count;
static u64 kicks, errors, largest_gap, last_poll, first_begins;

/*
 * A run: warm up, measure, stop submitting and wait for what is in flight; with verify, then read back all that was
 * written. A run for ever only measures.
 */
static enum { WARM_UP, MEASURE, STOP, READ_BACK } phase;
static u64 cursors[MAX_DISKS]; /* of READ_BACK */

static u8 choose_type(struct disk *d)
{
	if (phase == READ_BACK)
		return BLK_IN;
	if (opt.flush && d->since_flush >= opt.flush) {
		d->since_flush = 0;
		return BLK_FLUSH;
	}
	if (opt.mode == READ || (opt.mode == MIX && random_below(&d->random, 10) < 7))
		return BLK_IN;
	d->since_flush++;
	return BLK_OUT;
}

/* Submits one request; false if there is none to submit. */
static bool submit(struct disk *d, u64 now)
{
	u64 block;
	if (phase == STOP)
		return false;
	if (phase == READ_BACK) {
		if (!verify_next_unread(d, &cursors[d->index], &block))
			return false;
	} else if (!opt.verify) {
		block = random_below(&d->random, d->blocks);
	} else if (!verify_choose(d, &block)) {
		return false;
	}
	u32 slot = d->free[--d->free_count];
	disk_submit(d, slot, choose_type(d), block, now);
	if (opt.verify)
		verify_submit(d, slot);
	return true;
}

/* Takes what a disk has completed and gives it as much to do again; one kick at most. */
static void serve(struct disk *d)
{
	u64 now = rdtsc();
	int slot;
	for (u32 i = 0; i < opt.depth && (slot = disk_reap(d)) >= 0; i++) {
		bool ok = d->status[slot] == 0;
		if (phase <= MEASURE) {
			hist_add(now - d->requests[slot].submitted);
			d->done++;
		}
		errors += !ok;
		if (opt.verify)
			verify_done(d, slot, ok);
		d->free[d->free_count++] = slot;
	}
	while (d->free_count && submit(d, now))
		;
	bool kicked = disk_publish(d);
	kicks += kicked && phase <= MEASURE;
}

static void poll(void)
{
	u64 now = rdtsc();
	if (now - last_poll > largest_gap && phase <= MEASURE)
		largest_gap = now - last_poll;
	last_poll = now;
	/*
	 * Each round begins with another disk: with always the same one in front, it got 8 % more done than the last of 16,
	 * and the device was not to blame.
	 */
	static u32 first;
	first = first + 1 < count ? first + 1 : 0;
	for (u32 n = 0, i = first; n < count; n++, i = i + 1 < count ? i + 1 : 0)
		if ((i || now >= first_begins) && (disks[i].used[1] != disks[i].used_idx || disks[i].free_count))
			serve(disks + i);
	console_step();
}

/* At least once. */
static void poll_until(u64 end)
{
	do
		poll();
	while (rdtsc() < end);
}

static u32 in_flight(struct disk *d) { return opt.depth - d->free_count; }

static void drain(void)
{
	u64 deadline = rdtsc() + 60 * tsc_hz;
	for (u32 i = 0; i < count; i++) {
		while (in_flight(disks + i)) {
			poll();
			if (rdtsc() > deadline)
				fail("disk %u: %u requests did not come back in 60 s; device status %x", i, in_flight(disks + i), (u64)disk_status(disks + i));
		}
	}
}

static void reset(void)
{
	hist_reset();
	kicks = largest_gap = 0;
	for (u32 i = 0; i < count; i++)
		disks[i].done = 0;
}

static u64 rate(u64 requests, u64 ticks) { return (u64)((unsigned __int128)requests * ((tsc_hz << 20) / (ticks >> 12)) >> 32); }

static void result(u64 ticks)
{
	u32 slow = 0, fast = 0;
	u64 sum = 0;
	for (u32 i = 0; i < count; i++) {
		sum += disks[i].done;
		if (disks[i].done < disks[slow].done)
			slow = i;
		if (disks[i].done > disks[fast].done)
			fast = i;
	}
	print("diskbench: iops=%U p50=%T p99=%T p999=%T max=%T kicks=%U errors=%U slowest=%u:%U fastest=%u:%U disks=%u depth=%u size=%u gap=%T verified=%U mismatches=%U",
		rate(sum, ticks), hist_quantile(500000), hist_quantile(990000), hist_quantile(999000), hist_max, kicks, errors,
		slow, rate(disks[slow].done, ticks), fast, rate(disks[fast].done, ticks), count, opt.depth, opt.size, largest_gap,
		verify_good, verify_bad);
}

/* No moment is between two lines: whenever the guest stands still, one of them has the gap. */
static void for_ever(void)
{
	u64 start = last_poll, begin = start;
	for (u32 t = 1;; t++) {
		reset();
		poll_until(begin + tsc_hz / 1000 * opt.period);
		u64 sum = 0;
		u32 idle = 0;
		for (u32 i = 0; i < count; i++) {
			sum += disks[i].done;
			idle += !disks[i].done;
		}
		queue_line("diskbench: t=%u at=%T iops=%U max=%T gap=%T kicks=%U errors=%U idle=%u verified=%U mismatches=%U",
			t, last_poll - start, rate(sum, last_poll - begin), hist_max, largest_gap, kicks, errors, idle, verify_good, verify_bad);
		begin = last_poll;
	}
}

void bench(struct disk *all, u32 n)
{
	disks = all;
	count = n;
	last_poll = rdtsc();
	first_begins = last_poll + tsc_hz / 1000 * opt.late;
	poll_until(last_poll + tsc_hz / 4);
	if (opt.forever)
		for_ever();

	phase = MEASURE;
	reset();
	last_poll = rdtsc();
	u64 begin = rdtsc();
	poll_until(begin + opt.seconds * tsc_hz);
	u64 took = rdtsc() - begin;
	phase = STOP;
	drain();
	if (opt.verify) {
		phase = READ_BACK;
		for (u32 i = 0; i < n; i++)
			serve(disks + i);
		drain();
	}
	result(took);
	if (verify_bad)
		fail("%U blocks did not hold what was written", verify_bad);
}
