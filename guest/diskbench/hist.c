#include "guest.h"

/*
 * Buckets by the highest bits of a latency: exact below 64 ticks, then 64 to each power of two, so that a bucket is
 * at most 1/64 as wide as what is in it.
 */
#define SUB_BITS 6
#define SUB (1u << SUB_BITS)
static u64 buckets[(64 - SUB_BITS + 1) * SUB];

u64 hist_max, hist_count;

void hist_add(u64 ticks)
{
	u32 i = ticks;
	if (ticks >= SUB) {
		u32 shift = 63 - __builtin_clzll(ticks) - SUB_BITS;
		i = (shift + 1) * SUB + (ticks >> shift & (SUB - 1));
	}
	buckets[i]++;
	hist_count++;
	if (ticks > hist_max)
		hist_max = ticks;
}

void hist_reset(void)
{
	for (u32 i = 0; i < sizeof buckets / sizeof *buckets; i++)
		buckets[i] = 0;
	hist_max = hist_count = 0;
}

u64 hist_quantile(u32 per_million)
{
	u64 rank = (u64)((unsigned __int128)hist_count * per_million * 18446744073710ull >> 64); /* 2^64 / 1e6 */
	u64 seen = 0;
	for (u32 i = 0; i < sizeof buckets / sizeof *buckets; i++) {
		seen += buckets[i];
		if (seen > rank) {
			u64 upper = i;
			if (i >= SUB) {
				u32 shift = i / SUB - 1;
				upper = ((SUB + i % SUB + 1ull) << shift) - 1;
			}
			return upper < hist_max ? upper : hist_max;
		}
	}
	return hist_max;
}
