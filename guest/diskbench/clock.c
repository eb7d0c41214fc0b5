#include "guest.h"
#include <cpuid.h>

u64 tsc_hz = 1000000000; /* until it is known */
const char *tsc_source = "unknown";

/* KVM's page with the time (Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW). */
static volatile struct {
	u32 version, pad;
	u64 tsc_timestamp, system_time;
	u32 tsc_to_system_mul;
	signed char tsc_shift;
	u8 flags, pad2[2];
} __attribute__((aligned(64))) kvmclock;

static bool has_kvmclock;

/* CPUID and WRMSR belong to ring 0: without hardware, KVM has no hold on ring 3's CPUID. */
void clock_ring0(void)
{
	const u32 system_time_new = 0x4b564d01, clocksource2 = 1 << 3;
	u32 a, b, c, d;
	__cpuid(0x40000000, a, b, c, d);
	if (b != 0x4b4d564b || c != 0x564b4d56 || d != 0x4d) /* "KVMKVMKVM" */
		return;
	__cpuid(0x40000001, a, b, c, d);
	if (!(a & clocksource2))
		return;
	__asm__ volatile("wrmsr" : : "c"(system_time_new), "a"((u32)(u64)&kvmclock | 1), "d"(0) : "memory");
	has_kvmclock = true;
}

/* What KVM itself takes the counter's speed to be. */
static bool from_kvmclock(void)
{
	if (!has_kvmclock || !kvmclock.version || !kvmclock.tsc_to_system_mul)
		return false;
	u64 hz = (1000000000ull << 32) / kvmclock.tsc_to_system_mul;
	int shift = kvmclock.tsc_shift;
	tsc_hz = shift < 0 ? hz << -shift : hz >> shift;
	tsc_source = "kvmclock";
	return true;
}

static u8 cmos_seconds(void)
{
	outb(0x70, 0);
	return inb(0x71);
}

/* Waits for the clock's next second, but not for ever. */
static bool next_second(u64 *at)
{
	u8 now = cmos_seconds();
	for (u32 i = 0; i < 10000000; i++) {
		if (cmos_seconds() != now) {
			*at = rdtsc();
			return true;
		}
	}
	return false;
}

/* One second of the CMOS clock; an access takes some microseconds, so that is good to 0.01 %. */
static bool from_cmos(void)
{
	u64 from, to;
	if (!next_second(&from) || !next_second(&to))
		return false;
	tsc_hz = to - from;
	tsc_source = "CMOS";
	return true;
}

void clock_start(void)
{
	if (!from_kvmclock() && !from_cmos())
		fail("no clock to measure the time-stamp counter with: neither kvmclock nor a CMOS clock that runs");
	if (tsc_hz < 10000000 || tsc_hz > 100000000000)
		fail("a time-stamp counter of %U Hz, says the %s, can't be", tsc_hz, tsc_source);
}
