package machine

import (
	"fmt"
	"testing"

	"github.com/ebb-vmm/ebb/kvm"
)

// What KVM reports of two kinds of processor, with the topology of the host CPU
// it happened to ask: 16 threads, id 7.
func intelLike() []kvm.CPUIDEntry {
	leaf := func(f, i, a, b, c, d uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{Function: f, Index: i, Flags: kvm.CPUIDSignificantIndex, EAX: a, EBX: b, ECX: c, EDX: d}
	}
	return []kvm.CPUIDEntry{
		{Function: 0, EAX: 0x1f, EBX: 0x756e6547, ECX: 0x6c65746e, EDX: 0x49656e69},
		{Function: 1, EAX: 0x000606a6, EBX: 0x07100800, ECX: 0x77fafbff, EDX: 0xbfebfbff},
		leaf(4, 0, 0x1c004121, 0x02c0003f, 63, 0),                               // L1d
		leaf(4, 1, 0x1c004122, 0x01c0003f, 63, 0),                               // L1i
		leaf(4, 2, 0x1c004143, 0x04c0003f, 1023, 0),                             // L2
		leaf(4, 3, 0x1c03c163, 0x02c0003f, 4095, 4),                             // L3, of 16 threads
		leaf(4, 4, 0, 0, 0, 0),                                                  // the end
		{Function: 7, Flags: kvm.CPUIDSignificantIndex, EBX: 0xf1bf, ECX: 0xc0}, // WAITPKG, SHSTK
		leaf(0xb, 0, 1, 2, 0x100, 7), leaf(0xb, 1, 4, 16, 0x201, 7),
		leaf(0x1f, 0, 1, 2, 0x100, 7), leaf(0x1f, 1, 4, 16, 0x201, 7),
		{Function: 0x80000001, ECX: 0x121, EDX: 0x2c100800},
		{Function: 0x80000008, EAX: 0x302e},
	}
}

func amdLike() []kvm.CPUIDEntry {
	leaf := func(i, a uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{Function: 0x8000001d, Index: i, Flags: kvm.CPUIDSignificantIndex, EAX: a, EBX: 0x1c0003f}
	}
	return []kvm.CPUIDEntry{
		{Function: 0, EAX: 0x10, EBX: 0x68747541, ECX: 0x444d4163, EDX: 0x69746e65},
		{Function: 1, EAX: 0x00a20f12, EBX: 0x07100800, ECX: 0x76f8320b, EDX: 0x178bfbff},
		{Function: 0x80000001, ECX: 0x00400003 | 1<<24, EDX: 0x2fd3fbff},
		{Function: 0x80000008, EAX: 0x3030, EBX: 0x1234, ECX: 0x0003f40f}, // 16 threads, 4 bits, and a bit that isn't ours
		leaf(0, 0x4121), leaf(1, 0x4122), leaf(2, 0x4143), leaf(3, 0x3c163), leaf(4, 0),
		{Function: 0x8000001e, EAX: 7, EBX: 0x103, ECX: 0x100},
	}
}

type leaves []kvm.CPUIDEntry

func (l leaves) get(t *testing.T, function, index uint32) kvm.CPUIDEntry {
	t.Helper()
	var found []kvm.CPUIDEntry
	for _, e := range l {
		if e.Function == function && e.Index == index {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		t.Fatalf("leaf %#x/%d is there %d times", function, index, len(found))
	}
	return found[0]
}

func field(v uint32, low, high int) int { return int(v >> low & (1<<(high-low+1) - 1)) }

func TestTopology(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8, MaxCPUs} {
		bits := map[int]int{1: 0, 2: 1, 3: 2, 8: 3, MaxCPUs: 8}[n]
		for _, id := range []int{0, n - 1} {
			check := func(t *testing.T, what string, got, want int) {
				t.Helper()
				if got != want {
					t.Errorf("%s = %d, want %d", what, got, want)
				}
			}
			common := func(t *testing.T, l leaves) {
				one := l.get(t, 1, 0)
				check(t, "logical processors", field(one.EBX, 16, 23), n)
				check(t, "APIC id", field(one.EBX, 24, 31), id)
				check(t, "CLFLUSH size", field(one.EBX, 8, 15), 8)
				check(t, "HTT", field(one.EDX, 28, 28), min(n-1, 1))
				check(t, "hypervisor", field(one.ECX, 31, 31), 1)
				if l.get(t, 0, 0).EAX < 0xb {
					t.Fatal("no leaf 0xb")
				}
			}
			extended := func(t *testing.T, l leaves, leaf uint32) {
				for i, want := range [][4]uint32{{0, 1, 0x100, uint32(id)}, {uint32(bits), uint32(n), 0x201, uint32(id)}, {0, 0, 2, uint32(id)}} {
					e := l.get(t, leaf, uint32(i))
					if got := [4]uint32{e.EAX, e.EBX, e.ECX, e.EDX}; got != want || e.Flags != kvm.CPUIDSignificantIndex {
						t.Errorf("leaf %#x/%d: %#x (flags %d), want %#x", leaf, i, got, e.Flags, want)
					}
				}
			}
			caches := func(t *testing.T, l leaves, leaf uint32) {
				for i, sharing := range []int{1, 1, 1, n} {
					e := l.get(t, leaf, uint32(i))
					check(t, fmt.Sprintf("cache %d: threads that share it", i), field(e.EAX, 14, 25)+1, sharing)
					check(t, fmt.Sprintf("cache %d: level", i), field(e.EAX, 5, 7), []int{1, 1, 2, 3}[i])
				}
				check(t, "what follows the last cache", int(l.get(t, leaf, 4).EAX), 0)
			}
			t.Run(fmt.Sprintf("Intel, %d of %d", id, n), func(t *testing.T) {
				l := leaves(cpuid(intelLike(), id, n, true))
				common(t, l)
				extended(t, l, 0xb)
				extended(t, l, 0x1f)
				caches(t, l, 4)
				// Room for at least n ids, and no more than the field holds.
				check(t, "core ids", field(l.get(t, 4, 0).EAX, 26, 31)+1, min(1<<bits, 64))
				check(t, "TSC deadline timer", field(l.get(t, 1, 0).ECX, 24, 24), 1)
				check(t, "address bits", int(l.get(t, 0x80000008, 0).EAX), 0x302e)
				if got := l.get(t, 7, 0); got.EBX != 0xf1bf || got.ECX != 0x40 {
					t.Errorf("leaf 7 was changed: %+v", got)
				}
			})
			t.Run(fmt.Sprintf("AMD, %d of %d", id, n), func(t *testing.T) {
				l := leaves(cpuid(amdLike(), id, n, false))
				common(t, l)
				extended(t, l, 0xb) // AMD has had it since Zen
				if has(l, 0x1f) {
					t.Error("leaf 0x1f, which the host has not")
				}
				caches(t, l, 0x8000001d)
				eight := l.get(t, 0x80000008, 0).ECX
				check(t, "cores", field(eight, 0, 7)+1, n)
				check(t, "core id bits", field(eight, 12, 15), bits)
				check(t, "the other bits of ECX", int(eight&^0xf0ff), 0x30400)
				ext := l.get(t, 0x80000001, 0).ECX
				check(t, "CmpLegacy", field(ext, 1, 1), min(n-1, 1))
				check(t, "TopologyExtensions", field(ext, 22, 22), 1)
				e := l.get(t, 0x8000001e, 0)
				if e.EAX != uint32(id) || e.EBX != uint32(id) || e.ECX != 0 {
					t.Errorf("leaf 0x8000001e: %+v, want core %d of one thread on node 0", e, id)
				}
				check(t, "TSC deadline timer", field(l.get(t, 1, 0).ECX, 24, 24), 0)
			})
		}
	}
}

// A processor without the leaves isn't given them, nor what promises them.
func TestCPUIDOfAnOldProcessor(t *testing.T) {
	l := leaves(cpuid([]kvm.CPUIDEntry{{Function: 0, EAX: 0xa}, {Function: 1}, {Function: 0x80000001, ECX: 1 << 22}}, 1, 2, false))
	if len(l) != 3 {
		t.Errorf("%d leaves, want 3: %+v", len(l), l)
	}
	if ext := l.get(t, 0x80000001, 0).ECX; ext != 1<<1 {
		t.Errorf("extended features %#x, want CmpLegacy without topology extensions", ext)
	}
}

func TestCPUIDLeavesItsInputAlone(t *testing.T) {
	in, want := amdLike(), amdLike()
	cpuid(in, 3, 8, true)
	for i := range in {
		if in[i] != want[i] {
			t.Errorf("leaf %#x was changed", in[i].Function)
		}
	}
}
