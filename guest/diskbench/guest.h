/*
 * The disk benchmark: a guest without an operating system that drives all virtio disks from one vCPU, by polling.
 *
 *   start.S    entry points, page tables, the way to ring 3
 *   main.c     command line, one run from start to power-off
 *   bench.c    the loop: reap, account, submit, kick
 *   disk.c     one virtio-blk device: set-up, its rings
 *   pci.c      finding devices, their capabilities
 *   verify.c   what blocks contain and whether they do
 *   hist.c     latencies
 *   clock.c    how fast the time-stamp counter is
 *   console.c  the serial port, power-off
 *   memory.c   the memory map, an allocator, memset
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define MAX_DISKS 64

/* What the kernel command line asks for. */
enum mode { READ, WRITE, MIX };
struct options {
	u32 depth;     /* requests in flight per disk */
	u32 size;      /* bytes a request */
	enum mode mode;
	u32 seconds;   /* of measuring, after the warm-up */
	u32 flush;     /* a flush after so many writes; 0: none */
	u32 disks;     /* use only the first so many */
	bool forever;  /* no end; a line every period */
	u32 period;    /* milliseconds */
	u32 late;      /* milliseconds in which the first disk has nothing to do */
	bool verify;
	u64 seed;      /* also the epoch of what verify writes */
};
extern struct options opt;

/* --- machine --- */

static inline u64 rdtsc(void) { u32 lo, hi; __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)); return (u64)hi << 32 | lo; }
static inline void outb(u16 port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline void outw(u16 port, u16 v) { __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline void outl(u16 port, u32 v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline u8 inb(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u32 inl(u16 port) { u32 v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }

/* The other side of a ring is another processor: x86 orders all but a store before a load. */
static inline void barrier(void) { __asm__ volatile("" : : : "memory"); }
static inline void full_barrier(void) { __asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc"); }

extern u64 tsc_hz;
extern const char *tsc_source;
void clock_ring0(void); /* the part that needs ring 0 */
void clock_start(void);

void memory_start(void);
void *allocate(u64 size, u64 align); /* zeroed; ends the guest when there is no more */

/* --- console --- */

void print(const char *format, ...); /* %s %u (u32) %U (u64) %x (u64) %T (ticks, as microseconds); waits for the port */
void queue_line(const char *format, ...); /* the same, for console_step to send */
bool console_step(void);             /* sends one waiting character, if any */
void power_off(void) __attribute__((noreturn));
void fail(const char *format, ...) __attribute__((noreturn)); /* says why, reports a panic, powers off */

/* --- PCI and virtio --- */

struct pci_function { u8 slot, fn; };
u32 pci_read(struct pci_function f, u32 off);          /* 32 bits; off is a multiple of 4 */
void pci_write(struct pci_function f, u32 off, u32 v);
u32 pci_find_disks(struct pci_function *found, u32 max); /* function 0 of every slot first: ebb's order of --disk */

struct request {
	u64 submitted;  /* ticks */
	u64 block;      /* in units of opt.size */
	u32 seq;
	u8 type;
	bool busy;
};

struct disk {
	u32 index;
	volatile u8 *common; /* virtio_pci_common_cfg */
	volatile u16 *notify;
	u64 blocks;          /* of opt.size */
	bool can_flush;

	/* The queue. Request i has descriptors 3i to 3i+2: header, data, status. */
	u16 queue_size;
	struct virtq_desc *desc;
	volatile u16 *avail; /* flags, idx, ring[size], used_event */
	volatile u16 *used;  /* flags, idx, ring[size] of {u32 id, u32 len}, avail_event */
	u16 avail_idx, kicked_idx, used_idx, event_set;

	struct request *requests;
	u8 *data;            /* opt.size a request */
	struct virtio_blk_outhdr *headers;
	volatile u8 *status;
	u32 *free;           /* requests to use next, a stack */
	u32 free_count;

	u64 random;
	u32 since_flush;     /* writes */
	u64 done;            /* requests that count */

	struct verify *verify;
};

enum { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4 };

void disk_start(struct disk *d, u32 index, struct pci_function f);
void disk_submit(struct disk *d, u32 slot, u8 type, u64 block, u64 now);
bool disk_publish(struct disk *d); /* makes what was submitted visible; true if that took a kick */
u8 disk_status(struct disk *d);    /* the device's */

/* Takes one completed request; -1 if there is none. */
int disk_reap(struct disk *d);

/* --- verify --- */

void verify_start(struct disk *d);
bool verify_choose(struct disk *d, u64 *block); /* a block nothing is in flight for */
void verify_submit(struct disk *d, u32 slot);   /* fills in what a write writes */
void verify_done(struct disk *d, u32 slot, bool ok);
bool verify_next_unread(struct disk *d, u64 *cursor, u64 *block); /* for the last pass over all that was written */
extern u64 verify_good, verify_bad;

/* --- latencies --- */

void hist_add(u64 ticks);
void hist_reset(void);
u64 hist_quantile(u32 per_million); /* ticks, at most 1.6 % above the true value */
extern u64 hist_max, hist_count;

/* --- the benchmark --- */

void bench(struct disk *disks, u32 n);

static inline u64 random_next(u64 *state)
{
	u64 x = *state; /* xorshift64* */
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1d;
}

/* A number below n, by multiplication instead of a division. */
static inline u64 random_below(u64 *state, u64 n) { return (u64)(((unsigned __int128)random_next(state) * n) >> 64); }
