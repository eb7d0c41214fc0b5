#include "guest.h"

extern u32 boot_start_info, boot_zero_page;

struct options opt = { .depth = 64, .size = 4096, .mode = READ, .seconds = 2, .period = 1000, .disks = MAX_DISKS };

/* Called in ring 0, with a stack. */
void ring0(void) { clock_ring0(); }

/* The kernel command line: PVH's start info has its address at 24, the zero page at 0x228. */
static const char *command_line(void)
{
	if (boot_start_info)
		return *(const char **)(u64)(boot_start_info + 24);
	return (const char *)(u64)*(const u32 *)(u64)(boot_zero_page + 0x228);
}

/* What follows key in a word, or NULL. */
static const char *after(const char *word, const char *key)
{
	while (*key)
		if (*word++ != *key++)
			return NULL;
	return word;
}

static bool ends(char c) { return c == 0 || c == ' '; }

static bool is(const char *word, const char *text)
{
	word = after(word, text);
	return word && ends(*word);
}

static bool number(const char *word, const char *key, u64 low, u64 high, u64 *to)
{
	word = after(word, key);
	if (!word)
		return false;
	u64 v = 0;
	const char *s = word;
	for (; *s >= '0' && *s <= '9' && v <= high; s++)
		v = 10 * v + *s - '0';
	if (s == word || !ends(*s) || v < low || v > high)
		fail("%s on the command line has to be a number from %U to %U", key, low, high);
	*to = v;
	return true;
}

/* Words that mean nothing here are left alone: console=ttyS0 and what else kernels get. */
static void option(const char *word)
{
	u64 v;
	if (number(word, "depth=", 1, 341, &v)) opt.depth = v; /* 3 descriptors each, of at most 1024 */
	else if (number(word, "size=", 512, 1 << 20, &v)) opt.size = v;
	else if (number(word, "seconds=", 1, 86400, &v)) opt.seconds = v;
	else if (number(word, "period=", 10, 10000, &v)) opt.period = v;
	else if (number(word, "late=", 0, 86400000, &v)) opt.late = v;
	else if (number(word, "flush=", 0, 1 << 30, &v)) opt.flush = v;
	else if (number(word, "disks=", 1, MAX_DISKS, &v)) opt.disks = v;
	else if (number(word, "seed=", 0, ~0ull / 16, &v)) opt.seed = v;
	else if (is(word, "mode=read")) opt.mode = READ;
	else if (is(word, "mode=write")) opt.mode = WRITE;
	else if (is(word, "mode=mix")) opt.mode = MIX;
	else if (after(word, "mode=")) fail("mode= on the command line has to be read, write or mix");
	else if (is(word, "forever")) opt.forever = true;
	else if (is(word, "verify")) opt.verify = true;
}

static void options(void)
{
	opt.seed = rdtsc() >> 8 | 1;
	for (const char *s = command_line(); s && *s;) {
		while (*s == ' ')
			s++;
		option(s);
		while (!ends(*s))
			s++;
	}
	if (opt.size % 512)
		fail("size= on the command line has to be a multiple of 512");
	if (opt.verify && opt.mode == READ)
		fail("verify needs mode=write or mode=mix");
}

static struct disk disks[MAX_DISKS];

void main(void)
{
	struct pci_function found[MAX_DISKS];
	options();
	memory_start();
	clock_start();
	u32 n = pci_find_disks(found, opt.disks);
	if (!n)
		fail("there is no virtio disk on PCI bus 0");
	for (u32 i = 0; i < n; i++) {
		disk_start(disks + i, i, found[i]);
		if (opt.flush && !disks[i].can_flush)
			fail("disk %u: flush= is given and it has no FLUSH", i);
		if (opt.verify)
			verify_start(disks + i);
	}
	print("diskbench: start disks=%u depth=%u size=%u tsc=%U source=%s seed=%U", n, opt.depth, opt.size, tsc_hz, tsc_source, opt.seed);
	bench(disks, n);
	print("diskbench: done");
	power_off();
}
