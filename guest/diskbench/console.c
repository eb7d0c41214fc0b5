#include "guest.h"
#include <stdarg.h>

#define PORT 0x3f8 /* a 16550 */

/* Characters that wait for console_step. Printing at once would stop the loop for milliseconds: an access to a port costs 30 us. */
#define QUEUE 4096
static char queue[QUEUE];
static u32 queue_in, queue_out;

static void send_now(char c)
{
	while (!(inb(PORT + 5) & 0x20))
		;
	outb(PORT, c);
}

static void send_later(char c)
{
	if (queue_in - queue_out < QUEUE)
		queue[queue_in++ % QUEUE] = c;
}

bool console_step(void)
{
	if (queue_in == queue_out)
		return false;
	if (inb(PORT + 5) & 0x20)
		outb(PORT, queue[queue_out++ % QUEUE]);
	return true;
}

static void number(void (*send)(char), u64 v, u32 base)
{
	char digits[20];
	u32 n = 0;
	do {
		digits[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n)
		send(digits[--n]);
}

/* Ticks as microseconds, with one digit behind the point. */
static void microseconds(void (*send)(char), u64 ticks)
{
	u64 tenths = (u64)((unsigned __int128)ticks * ((10000000ull << 24) / tsc_hz) >> 24);
	number(send, tenths / 10, 10);
	send('.');
	send('0' + tenths % 10);
	send('u');
	send('s');
}

static void format(void (*send)(char), const char *f, va_list args)
{
	for (; *f; f++) {
		if (*f != '%') {
			send(*f);
			continue;
		}
		switch (*++f) {
		case 's':
			for (const char *s = va_arg(args, const char *); *s; s++)
				send(*s);
			break;
		case 'u': number(send, va_arg(args, u32), 10); break;
		case 'U': number(send, va_arg(args, u64), 10); break;
		case 'x': number(send, va_arg(args, u64), 16); break;
		case 'T': microseconds(send, va_arg(args, u64)); break;
		default: send(*f);
		}
	}
	send('\r');
	send('\n');
}

void print(const char *f, ...)
{
	va_list args;
	while (console_step())
		;
	va_start(args, f);
	format(send_now, f, args);
	va_end(args);
}

void queue_line(const char *f, ...)
{
	va_list args;
	va_start(args, f);
	format(send_later, f, args);
	va_end(args);
}

void power_off(void)
{
	/* PM1 control: SLP_EN with the sleep type of S5, which is 0 on QEMU's chipsets and 5 on ebb's (machine/chipset). */
	outw(0x604, 0x2000);
	outw(0x604, 0x3400);
	for (;;)
		__asm__ volatile("pause");
}

void fail(const char *f, ...)
{
	va_list args;
	while (console_step())
		;
	for (const char *s = "diskbench: FAILED: "; *s; s++)
		send_now(*s);
	va_start(args, f);
	format(send_now, f, args);
	va_end(args);
	outb(0x505, 1); /* pvpanic: ebb's exit code tells that the guest failed */
	power_off();
}
