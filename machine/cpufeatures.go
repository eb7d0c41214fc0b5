package machine

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/ebb-vmm/ebb/kvm"
)

// featureWord is a register of a CPUID leaf whose bits are features (SDM volume 2A,
// CPUID; APM volume 3, appendix E; Documentation/virt/kvm/x86/cpuid.rst for 0x40000001).
type featureWord struct {
	function, index uint32
	name            string // of the register
	ignore          uint32 // bits that are topology, or follow the vCPU's state
	bits            string // names from bit 0 on, as Linux has them; - for none
}

// featureWords are all registers that a guest's software looks for features in.
var featureWords = []featureWord{
	{0x1, 0, "edx", 1<<9 | 1<<28, "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
	{0x1, 0, "ecx", 1 << 27, "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor"},
	{0x7, 0, "ebx", 0, "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl"},
	{0x7, 0, "ecx", 1 << 4, "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks"},
	{0x7, 0, "edx", 0, "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl stibp flush_l1d arch_capabilities core_capabilities ssbd"},
	{0x7, 1, "eax", 0, "sha512 sm3 sm4 - avx_vnni avx512_bf16 - - - - fzrm fsrs fsrc"},
	{0x7, 1, "ebx", 0, ""},
	{0x7, 1, "ecx", 0, ""},
	{0x7, 1, "edx", 0, ""},
	{0x7, 2, "edx", 0, ""},
	{0xd, 0, "eax", 0, "x87 sse avx bndregs bndcsr opmask zmm_hi256 hi16_zmm pt pkru"},
	{0xd, 0, "edx", 0, ""},
	{0xd, 1, "eax", 0, "xsaveopt xsavec xgetbv1 xsaves xfd"},
	{0xd, 1, "ecx", 0, ""},
	{0xd, 1, "edx", 0, ""},
	{0x40000001, 0, "eax", 0, "kvm_clocksource kvm_nop_io_delay kvm_mmu_op kvm_clocksource2 kvm_async_pf kvm_steal_time kvm_pv_eoi kvm_pv_unhalt"},
	{0x80000001, 0, "edx", 1 << 9, "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow"},
	{0x80000001, 0, "ecx", 1 << 1, "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx"},
	{0x80000007, 0, "edx", 0, "- - - - - - - - constant_tsc"},
	{0x80000008, 0, "ebx", 0, "clzero irperf xsaveerptr - - - - - - wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp"},
	{0x8000000a, 0, "edx", 0, "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists"},
	{0x80000021, 0, "eax", 0, ""},
}

// reg picks the register out of a leaf.
func (f featureWord) reg(e kvm.CPUIDEntry) uint32 {
	return map[string]uint32{"eax": e.EAX, "ebx": e.EBX, "ecx": e.ECX, "edx": e.EDX}[f.name]
}

// describe names the lowest of some features, and how many more there are.
func (f featureWord) describe(set uint32) string {
	bit := bits.TrailingZeros32(set)
	s := fmt.Sprintf("leaf %#x", f.function)
	if f.index != 0 {
		s += fmt.Sprintf(".%d", f.index)
	}
	s += fmt.Sprintf(" %s bit %d", f.name, bit)
	if names := strings.Fields(f.bits); bit < len(names) && names[bit] != "-" {
		s += " (" + names[bit] + ")"
	}
	if more := bits.OnesCount32(set) - 1; more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
