package machine

import (
	"slices"
	"strings"
	"testing"

	"github.com/ebb-vmm/ebb/kvm"
)

func TestCompatible(t *testing.T) {
	xsave := kvm.CPUIDEntry{Function: 0xd, Index: 2, Flags: kvm.CPUIDSignificantIndex, EAX: 256, EBX: 576}
	traits := func(cpus int) cpuTraits {
		c := cpuTraits{MSRs: []uint32{kvm.MSRStar, kvm.MSRLStar}, XSAVE: 4096, TSCKHz: 2_000_000}
		for id := range cpus {
			c.CPUID = append(c.CPUID, append(cpuid(intelLike(), id, cpus, true), xsave))
		}
		return c
	}
	edit := func(list []kvm.CPUIDEntry, function uint32, f func(*kvm.CPUIDEntry)) {
		i := slices.IndexFunc(list, func(e kvm.CPUIDEntry) bool { return e.Function == function })
		f(&list[i])
	}
	for _, c := range []struct {
		says string // nothing: compatible
		edit func(guest, host *cpuTraits)
	}{
		{"", func(g, h *cpuTraits) {}},
		{"", func(g, h *cpuTraits) { edit(h.CPUID[0], 7, func(e *kvm.CPUIDEntry) { e.EBX |= 1 << 31 }) }},
		{"CPUID leaf 0x7 ebx bit 5 (avx2)", func(g, h *cpuTraits) { edit(h.CPUID[0], 7, func(e *kvm.CPUIDEntry) { e.EBX &^= 1 << 5 }) }},
		{"CPUID leaf 0x7 ebx bit 3 (bmi1) and 1 more", func(g, h *cpuTraits) { edit(h.CPUID[0], 7, func(e *kvm.CPUIDEntry) { e.EBX &^= 1<<5 | 1<<3 }) }},
		{"CPUID leaf 0xd eax bit 2 (avx)", func(g, h *cpuTraits) {
			g.CPUID[1] = append(g.CPUID[1], kvm.CPUIDEntry{Function: 0xd, Flags: kvm.CPUIDSignificantIndex, EAX: 1 << 2})
		}},
		{`the destination's processor is "AuthenticAMD", the guest's "GenuineIntel"`, func(g, h *cpuTraits) { h.CPUID[0] = cpuid(amdLike(), 0, 1, true) }},
		{"physical addresses of 39 bits, the guest's 46", func(g, h *cpuTraits) { edit(h.CPUID[0], 0x80000008, func(e *kvm.CPUIDEntry) { e.EAX = 0x3027 }) }},
		{"linear addresses of 48 bits, the guest's 57", func(g, h *cpuTraits) { edit(g.CPUID[0], 0x80000008, func(e *kvm.CPUIDEntry) { e.EAX = 0x392e }) }},
		{"XSAVE component 2 (256 bytes) at 832", func(g, h *cpuTraits) { edit(h.CPUID[0], 0xd, func(e *kvm.CPUIDEntry) { e.EBX = 832 }) }},
		{"lacks MSR 0xc0000082", func(g, h *cpuTraits) { h.MSRs = h.MSRs[:1] }},
		{"has 4096 bytes, the guest's 11008", func(g, h *cpuTraits) { g.XSAVE = 11008 }},
		{"", func(g, h *cpuTraits) { h.TSCKHz = 2_000_500 }}, // 250 ppm
		{"at 2000000 kHz, the destination's at 2000502 kHz", func(g, h *cpuTraits) { h.TSCKHz = 2_000_502 }},
		{"at 2000000 kHz, the destination's at 1000000 kHz", func(g, h *cpuTraits) { h.TSCKHz = 1_000_000 }},
		{"", func(g, h *cpuTraits) { h.TSCKHz, h.TSCScaling = 1_000_000, true }},
		{"a TSC of 0 kHz", func(g, h *cpuTraits) { g.TSCKHz = 0 }},
		{"CPUID of 0 vCPUs", func(g, h *cpuTraits) { g.CPUID = nil }},
	} {
		guest, host := traits(2), traits(1)
		c.edit(&guest, &host)
		err := compatible(guest, host)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%v; want %q", err, c.says)
		}
	}
}

func TestFeatureNames(t *testing.T) {
	for _, f := range featureWords {
		if n := len(strings.Fields(f.bits)); n > 32 {
			t.Errorf("leaf %#x.%d %s has %d names", f.function, f.index, f.name, n)
		}
	}
	for want, at := range map[string]struct {
		function uint32
		name     string
		bit      int
	}{
		"hypervisor": {1, "ecx", 31}, "xsave": {1, "ecx", 26}, "sse2": {1, "edx", 26}, "avx512vl": {7, "ebx", 31}, "avx2": {7, "ebx", 5},
		"la57": {7, "ecx", 16}, "pks": {7, "ecx", 31}, "ssbd": {7, "edx", 31}, "amx_tile": {7, "edx", 24}, "lm": {0x80000001, "edx", 29},
		"nx": {0x80000001, "edx", 20}, "topoext": {0x80000001, "ecx", 22}, "mwaitx": {0x80000001, "ecx", 29},
	} {
		for _, f := range featureWords {
			if f.function == at.function && f.index == 0 && f.name == at.name && !strings.Contains(f.describe(1<<at.bit), "("+want+")") {
				t.Errorf("%s, want %s", f.describe(1<<at.bit), want)
			}
		}
	}
}

func TestCycles(t *testing.T) {
	for _, c := range []struct {
		ns   uint64
		khz  int
		want uint64
	}{{0, 2_000_000, 0}, {1e9, 2_095_985, 2_095_985_000}, {1, 2_000_000, 2}, {3600e9, 4_000_000, 14_400_000_000_000}} {
		if got := cycles(c.ns, c.khz); got != c.want {
			t.Errorf("%d ns at %d kHz: %d, want %d", c.ns, c.khz, got, c.want)
		}
	}
	cycles(1<<64-1, 1<<31-1) // more than 2^64: no panic
}
