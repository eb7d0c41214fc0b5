#include "virtio.h"

/* One virtio structure behind a vendor capability (VIRTIO 1.2, 4.1.4). */
static volatile u8 *structure(struct disk *d, struct pci_function f, u8 want, u32 *multiplier)
{
	u8 at = pci_read(f, 0x34) & 0xfc;
	for (u32 i = 0; at && i < 48; i++) { /* 48 fit: a chain that goes round ends too */
		u32 head = pci_read(f, at);
		if ((head & 0xff) == 0x09 && head >> 24 == want) {
			u32 bar = pci_read(f, at + 4) & 0xff, offset = pci_read(f, at + 8);
			if (bar > 5)
				break;
			u32 low = pci_read(f, 0x10 + 4 * bar);
			u64 base = low & ~15u;
			if ((low & 6) == 4)
				base |= (u64)pci_read(f, 0x14 + 4 * bar) << 32;
			if (low & 1 || base == 0 || base + offset >= 1ull << 32)
				fail("disk %u: its BAR %u is at %x, where this guest can't reach it", d->index, bar, base);
			if (multiplier)
				*multiplier = pci_read(f, at + 16);
			return (volatile u8 *)(base + offset);
		}
		at = head >> 8 & 0xfc;
	}
	fail("disk %u: no virtio capability %u; is it a legacy device?", d->index, (u32)want);
}

static u32 features(struct disk *d, u32 word)
{
	*(volatile u32 *)(d->common + DEVICE_FEATURE_SELECT) = word;
	return *(volatile u32 *)(d->common + DEVICE_FEATURE);
}

static void accept(struct disk *d, u32 word, u32 bits)
{
	*(volatile u32 *)(d->common + DRIVER_FEATURE_SELECT) = word;
	*(volatile u32 *)(d->common + DRIVER_FEATURE) = bits;
}

u8 disk_status(struct disk *d) { return d->common[DEVICE_STATUS]; }

/* Features, in the order of 3.1.1. */
static void negotiate(struct disk *d)
{
	u64 deadline = rdtsc() + 60 * tsc_hz;
	d->common[DEVICE_STATUS] = 0;
	while (d->common[DEVICE_STATUS]) /* reset is complete when it reads 0 */
		if (rdtsc() > deadline)
			fail("disk %u: its reset is not complete after 60 s", d->index);
	d->common[DEVICE_STATUS] = ACKNOWLEDGE | DRIVER;
	u32 low = features(d, 0), high = features(d, 1);
	if (!(high & VERSION_1) || !(low & EVENT_IDX))
		fail("disk %u: it lacks VERSION_1 or EVENT_IDX", d->index);
	if (low & BLK_F_RO && opt.mode != READ)
		fail("disk %u: it is read-only", d->index);
	d->can_flush = low & BLK_F_FLUSH;
	accept(d, 0, EVENT_IDX | (low & BLK_F_FLUSH));
	accept(d, 1, VERSION_1);
	d->common[DEVICE_STATUS] |= FEATURES_OK;
	if (!(d->common[DEVICE_STATUS] & FEATURES_OK))
		fail("disk %u: it refuses VERSION_1, EVENT_IDX and FLUSH", d->index);
}

static void write64(struct disk *d, u32 off, const volatile void *p)
{
	*(volatile u32 *)(d->common + off) = (u64)p;
	*(volatile u32 *)(d->common + off + 4) = (u64)p >> 32;
}

/* Gives request i its descriptors, for good: only header and type change. */
static void link(struct disk *d, u32 i)
{
	struct virtq_desc *c = d->desc + 3 * i;
	c[0] = (struct virtq_desc){ (u64)(d->headers + i), sizeof *d->headers, DESC_NEXT, 3 * i + 1 };
	c[1] = (struct virtq_desc){ (u64)(d->data + (u64)i * opt.size), opt.size, DESC_NEXT, 3 * i + 2 };
	c[2] = (struct virtq_desc){ (u64)(d->status + i), 1, DESC_WRITE, 0 };
}

static void make_queue(struct disk *d, volatile u8 *notify, u32 multiplier)
{
	*(volatile u16 *)(d->common + QUEUE_SELECT) = 0;
	u32 most = *(volatile u16 *)(d->common + QUEUE_SIZE), size = 256;
	while (size < 3 * opt.depth)
		size *= 2;
	if (size > most)
		size = most;
	if (3 * opt.depth > size)
		fail("disk %u: %u requests need %u descriptors and its queue has %u", d->index, opt.depth, 3 * opt.depth, size);
	d->queue_size = size;
	d->desc = allocate(16 * size, 4096);
	d->avail = allocate(6 + 2 * size, 4096);
	d->used = allocate(6 + 8 * size, 4096);
	d->requests = allocate(sizeof *d->requests * opt.depth, 64);
	d->headers = allocate(sizeof *d->headers * opt.depth, 64);
	d->status = allocate(opt.depth, 64);
	d->data = allocate((u64)opt.size * opt.depth, 4096);
	d->free = allocate(sizeof *d->free * opt.depth, 64);
	for (u32 i = 0; i < opt.depth; i++) {
		link(d, i);
		d->free[d->free_count++] = i;
	}
	/* With EVENT_IDX the device interrupts when the used index passes used_event: one behind is as far away as it gets. */
	d->avail[2 + size] = 0xffff;

	*(volatile u16 *)(d->common + QUEUE_SIZE) = size;
	*(volatile u16 *)(d->common + QUEUE_MSIX_VECTOR) = 0xffff;
	write64(d, QUEUE_DESC, d->desc);
	write64(d, QUEUE_DRIVER, d->avail);
	write64(d, QUEUE_DEVICE, d->used);
	d->notify = (volatile u16 *)(notify + *(volatile u16 *)(d->common + QUEUE_NOTIFY_OFF) * multiplier);
	*(volatile u16 *)(d->common + QUEUE_ENABLE) = 1;
}

void disk_start(struct disk *d, u32 index, struct pci_function f)
{
	u32 multiplier;
	d->index = index;
	d->random = opt.seed + index * 0x9e3779b97f4a7c15;
	if (!d->random)
		d->random = 1; /* the one state a xorshift generator does not leave */
	pci_write(f, 0x04, (pci_read(f, 0x04) & 0xffff) | 0x406); /* memory, bus master, no INTx */
	d->common = structure(d, f, 1, NULL);
	volatile u8 *notify = structure(d, f, 2, &multiplier);
	volatile u32 *config = (volatile u32 *)structure(d, f, 4, NULL);
	negotiate(d);
	u64 sectors = config[0] | (u64)config[1] << 32;
	d->blocks = sectors / (opt.size / 512);
	if (d->blocks < opt.depth)
		fail("disk %u: %U sectors are too few for %u requests of %u bytes", d->index, sectors, opt.depth, opt.size);
	make_queue(d, notify, multiplier);
	d->common[DEVICE_STATUS] |= DRIVER_OK;
}

void disk_submit(struct disk *d, u32 slot, u8 type, u64 block, u64 now)
{
	struct virtq_desc *c = d->desc + 3 * slot;
	c[0].next = 3 * slot + (type == BLK_FLUSH ? 2 : 1); /* a flush has no data */
	c[1].flags = DESC_NEXT | (type == BLK_IN ? DESC_WRITE : 0);
	d->headers[slot] = (struct virtio_blk_outhdr){ type, 0, type == BLK_FLUSH ? 0 : block * (opt.size / 512) };
	d->status[slot] = 0xff; /* so that a device which forgets it is found out */
	struct request *r = d->requests + slot;
	r->submitted = now;
	r->block = block;
	r->type = type;
	r->busy = true;
	d->avail[2 + (d->avail_idx++ & (d->queue_size - 1))] = 3 * slot;
}

bool disk_publish(struct disk *d)
{
	u16 old = d->kicked_idx, new = d->avail_idx;
	if (new == old)
		return false;
	d->kicked_idx = new;
	barrier();
	d->avail[1] = new;
	full_barrier(); /* 2.7.13.4.1: the index before the look at avail_event */
	u16 event = d->used[2 + 4 * d->queue_size];
	if ((u16)(new - event - 1) >= (u16)(new - old))
		return false;
	*d->notify = 0;
	return true;
}

int disk_reap(struct disk *d)
{
	if (d->used[1] == d->used_idx)
		return -1;
	barrier();
	u32 head = *(volatile u32 *)(d->used + 2 + 4 * (d->used_idx & (d->queue_size - 1)));
	u32 slot = head / 3;
	if (head % 3 || slot >= opt.depth || !d->requests[slot].busy)
		fail("disk %u: it returned descriptor %u, which it does not have", d->index, head);
	d->used_idx++;
	d->requests[slot].busy = false;
	if ((u16)(d->used_idx - d->event_set) >= 0x4000) { /* used_event stays behind, now and then is enough */
		d->event_set = d->used_idx;
		d->avail[2 + d->queue_size] = d->used_idx - 1;
	}
	return slot;
}
