/*
 * Two ways in: PVH (32-bit, no paging; what QEMU and ebb use when the note is there) and the 64-bit Linux boot
 * protocol. Both end in ring 3 as soon as can be: a KVM without hardware behind it interprets ring 0, some 300 times
 * slower, but runs ring 3 on the processor itself.
 */
#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_DATA   0x1b
#define USER_CODE   0x23
#define TASK        0x28

#define STACK_SIZE  16384

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18		/* name size, description size, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start32

	.text
	.code32
start32:			/* %ebx: struct hvm_start_info */
	cli
	cld
	mov %ebx, boot_start_info
	mov %cr4, %eax
	or $0x20, %eax		/* PAE */
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx	/* EFER */
	rdmsr
	or $0x100, %eax		/* LME */
	wrmsr
	mov %cr0, %eax
	or $0x80000001, %eax	/* PG, PE */
	mov %eax, %cr0
	lgdt gdt_pointer
	ljmp $KERNEL_CODE, $start

	.code64
	.globl start64
start64:			/* %rsi: struct boot_params; paging is on */
	cli
	cld
	mov %esi, boot_zero_page
	mov $pml4, %eax
	mov %rax, %cr3
	lgdt gdt_pointer
	mov $ring0_stack_end, %esp
	push $KERNEL_CODE
	push $start
	lretq

start:
	mov $KERNEL_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $ring0_stack_end, %esp

	/* The descriptor of the task state segment has its base in pieces. */
	mov $tss, %eax
	mov %ax, gdt_task + 2
	shr $16, %eax
	mov %al, gdt_task + 4
	mov %ah, gdt_task + 7
	mov $TASK, %eax
	ltr %ax

	call ring0

	push $USER_DATA
	push $stack_end
	/*
	 * No interrupts, and IOPL 3. That does not survive a software KVM, hence the bitmap as well; and the bitmap alone
	 * does not survive a migration on QEMU's emulator: a task register that was saved and loaded is busy, as it has to
	 * be, and QEMU (helper_check_io) then takes it for none.
	 */
	push $0x3002
	push $USER_CODE
	push $main
	iretq

	.data
	.balign 8
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* KERNEL_CODE */
	.quad 0x00cf93000000ffff	/* KERNEL_DATA */
	.quad 0x00cff3000000ffff	/* USER_DATA */
	.quad 0x00affb000000ffff	/* USER_CODE */
gdt_task:
	.quad 0x0000890000000000 + tss_end - tss - 1
	.quad 0
gdt_pointer:
	.word . - gdt - 1
	.quad gdt

	.globl boot_start_info, boot_zero_page
boot_start_info: .long 0
boot_zero_page:  .long 0

	/* 64-bit task state segment (SDM 3A, 8.7) with a bitmap that opens every port to ring 3. */
	.balign 16
tss:
	.long 0
	.quad ring0_stack_end
	.fill 0x66 - 12, 1, 0
	.word 0x68
	.fill 8192, 1, 0
	.byte 0xff
tss_end:

	/* The first 4 GiB in 2 MiB pages that ring 3 may use: present, writable, user, large. */
	.balign 4096
pml4:	.quad pdpt + 7
	.fill 511, 8, 0
pdpt:	.quad pd + 7, pd + 0x1007, pd + 0x2007, pd + 0x3007
	.fill 508, 8, 0
pd:
	.set page, 0x87
	.rept 2048
	.quad page
	.set page, page + 0x200000
	.endr

	.bss
	.balign 16
	.skip STACK_SIZE
stack_end:
	.skip STACK_SIZE
ring0_stack_end:

	.section .note.GNU-stack, "", @progbits
