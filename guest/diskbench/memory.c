#include "guest.h"

extern char program_end[];
extern u32 boot_start_info, boot_zero_page;

static u64 next, end;

void *memset(void *p, int c, size_t n)
{
	void *to = p;
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *p = to;
	__asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n) : : "memory");
	return to;
}

/* What is RAM behind this program, up to the end of the range the program lies in. */
static void range(u64 addr, u64 size, u32 type)
{
	u64 at = (u64)program_end;
	if (type == 1 && addr <= at && addr + size > at)
		end = addr + size;
}

void memory_start(void)
{
	next = (u64)program_end;
	if (boot_start_info) { /* struct hvm_start_info: memory map at 40, entries at 48 */
		const u8 *info = (const u8 *)(u64)boot_start_info;
		const u8 *map = (const u8 *)*(const u64 *)(info + 40);
		for (u32 i = 0, n = *(const u32 *)(info + 48); i < n; i++, map += 24)
			range(*(const u64 *)map, *(const u64 *)(map + 8), *(const u32 *)(map + 16));
	} else { /* struct boot_params: the e820 map at 0x2d0 */
		const u8 *zero_page = (const u8 *)(u64)boot_zero_page;
		const u8 *map = zero_page + 0x2d0;
		for (u32 i = 0, n = zero_page[0x1e8]; i < n; i++, map += 20) {
			u64 addr, size;
			u32 type;
			memcpy(&addr, map, 8);
			memcpy(&size, map + 8, 8);
			memcpy(&type, map + 16, 4);
			range(addr, size, type);
		}
	}
	if (end > 1ull << 32)
		end = 1ull << 32; /* what the page tables map */
}

void *allocate(u64 size, u64 align)
{
	u64 at = (next + align - 1) & ~(align - 1);
	if (at + size > end || at + size < at)
		fail("the guest needs more memory");
	next = at + size;
	/* Touched here, so that no first access falls into the measurement. */
	return memset((void *)at, 0, size);
}
