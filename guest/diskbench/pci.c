#include "guest.h"

/* Configuration mechanism #1 (PCI 3.0, 3.2.2.3.2), bus 0. */
static void select(struct pci_function f, u32 off) { outl(0xcf8, 1u << 31 | f.slot << 11 | f.fn << 8 | (off & 0xfc)); }

u32 pci_read(struct pci_function f, u32 off)
{
	select(f, off);
	return inl(0xcfc);
}

void pci_write(struct pci_function f, u32 off, u32 v)
{
	select(f, off);
	outl(0xcfc, v);
}

static bool is_disk(u32 id)
{
	return id == 0x10421af4 || id == 0x10011af4; /* modern, transitional */
}

u32 pci_find_disks(struct pci_function *found, u32 max)
{
	bool multifunction[32];
	u32 n = 0;
	for (u8 fn = 0; fn < 8; fn++) {
		for (u8 slot = 0; slot < 32; slot++) {
			struct pci_function f = { slot, fn };
			if (fn > 0 && !multifunction[slot])
				continue;
			u32 id = pci_read(f, 0);
			if (fn == 0)
				multifunction[slot] = (id & 0xffff) != 0xffff && pci_read(f, 0x0c) >> 23 & 1;
			if (is_disk(id) && n < max)
				found[n++] = f;
		}
	}
	return n;
}
