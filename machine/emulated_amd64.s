#include "textflag.h"

// func hypervisor() (b, c, d uint32)
TEXT ·hypervisor(SB), NOSPLIT, $0-12
	MOVL $0x40000000, AX
	XORL CX, CX
	CPUID
	MOVL BX, b+0(FP)
	MOVL CX, c+4(FP)
	MOVL DX, d+8(FP)
	RET
