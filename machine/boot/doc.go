// Package boot puts a kernel into guest memory and says how its first vCPU has to
// start, as a boot loader would:
//
//	file     format          protocol                                 first mode
//	bzImage  "HdrS"          Linux x86 64-bit boot protocol           long mode, identity-mapped
//	ELF      Xen note 18     PVH (x86/HVM direct boot ABI)            protected mode, no paging
//	ELF      e_entry         Linux x86 64-bit boot protocol           long mode, identity-mapped
//
// The kernel file is hostile input: every offset in it is checked before use.
//
// References: the kernel's Documentation/arch/x86/boot.rst and zero-page.rst, and
// Xen's docs/misc/pvh.pandoc and include/public/arch-x86/hvm/start_info.h.
package boot
