package machine

import (
	"math/bits"

	"github.com/ebb-vmm/ebb/kvm"
)

// cpuid returns what vCPU id of n is to say of itself: what the host and KVM
// support, with the topology of one package of n single-threaded cores (SDM
// volume 2A, CPUID; APM volume 3, appendix E). KVM reports its TSC deadline timer
// apart from the other features.
func cpuid(supported []kvm.CPUIDEntry, id, n int, tscDeadline bool) []kvm.CPUIDEntry {
	out := make([]kvm.CPUIDEntry, 0, len(supported)+4)
	coreBits := uint32(bits.Len(uint(n - 1))) // width of the core number within the APIC id
	for _, e := range supported {
		switch e.Function {
		case 0x1:
			e.EBX = e.EBX&0x0000ffff | uint32(n)<<16 | uint32(id)<<24
			const htt, hypervisor, deadline = 1 << 28, 1 << 31, 1 << 24
			e.EDX &^= htt
			if n > 1 {
				e.EDX |= htt
			}
			e.ECX |= hypervisor
			if tscDeadline {
				e.ECX |= deadline
			}
		case 0x4: // caches (Intel): each core has its own, but for the third level
			if e.EAX&0x1f != 0 {
				e.EAX = e.EAX&0x00003fff | uint32(1<<coreBits-1)<<26
				if e.EAX>>5&7 >= 3 {
					e.EAX |= uint32(n-1) << 14
				}
			}
		case 0x7: // no shadow stacks: the state has no shadow-stack pointer, which KVM gives by KVM_GET_ONE_REG only
			const shstk = 1 << 7
			if e.Index == 0 {
				e.ECX &^= shstk
			}
		case 0xb, 0x1f:
			continue // replaced below
		case 0x80000001:
			const cmpLegacy, topologyExt = 1 << 1, 1 << 22
			if n > 1 {
				e.ECX |= cmpLegacy
			} else {
				e.ECX &^= cmpLegacy
			}
			if !has(supported, 0x8000001e) {
				e.ECX &^= topologyExt
			}
		case 0x80000008: // cores, and how many APIC id bits they take (AMD)
			e.ECX = e.ECX&^0xf0ff | uint32(n-1) | coreBits<<12
		case 0x8000001d: // caches (AMD)
			if e.EAX&0x1f != 0 {
				e.EAX &= 0x00003fff
				if e.EAX>>5&7 >= 3 {
					e.EAX |= uint32(n-1) << 14
				}
			}
		case 0x8000001e:
			e.EAX, e.EBX, e.ECX = uint32(id), uint32(id), 0
		}
		out = append(out, e)
	}
	if maxBasic(supported) >= 0xb {
		const thread, core = 1 << 8, 2 << 8
		for _, leaf := range []uint32{0xb, 0x1f} {
			if leaf > maxBasic(supported) || leaf == 0x1f && !has(supported, 0x1f) {
				continue
			}
			level := func(i, shift, count, kind uint32) {
				out = append(out, kvm.CPUIDEntry{Function: leaf, Index: i, Flags: kvm.CPUIDSignificantIndex,
					EAX: shift, EBX: count, ECX: i | kind, EDX: uint32(id)})
			}
			level(0, 0, 1, thread)
			level(1, coreBits, uint32(n), core)
			level(2, 0, 0, 0)
		}
	}
	return out
}

func has(entries []kvm.CPUIDEntry, function uint32) bool {
	for _, e := range entries {
		if e.Function == function {
			return true
		}
	}
	return false
}

func maxBasic(entries []kvm.CPUIDEntry) uint32 {
	for _, e := range entries {
		if e.Function == 0 {
			return e.EAX
		}
	}
	return 0
}
