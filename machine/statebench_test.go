package machine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/plain"
	"github.com/ebb-vmm/ebb/virtio/virtiotest"
)

// someKVM is as much as KVM has of a Linux guest on a processor with AVX-512.
func someKVM(cpus int) kvmState {
	s := kvmState{CPUs: make([]cpuState, cpus), Controllers: irqState{Chips: [][]byte{make([]byte, 512), make([]byte, 512), make([]byte, 512)}}}
	for i := range s.CPUs {
		c := &s.CPUs[i]
		c.XSAVE, c.LAPIC, c.MSRs = make([]byte, 4096), make([]byte, 1024), make([]kvm.MSREntry, 100)
		s.Clocks.CPUs = append(s.Clocks.CPUs, cpuClock{MSRs: make([]kvm.MSREntry, 3)})
	}
	return s
}

// BenchmarkState measures what of a blackout is the state's and not KVM's (that is BenchmarkSaveKVM): saving the devices,
// making bytes of the whole, reading these, and loading the devices, whose disks become ports of the engine. It needs no KVM:
//
//	EBB_IN_LAB=1 go test ./machine -run - -bench State
func BenchmarkState(b *testing.B) {
	for _, c := range []struct{ cpus, disks int }{{1, 1}, {8, 1}, {8, 16}} {
		b.Run(fmt.Sprintf("%d vCPUs %d disks", c.cpus, c.disks), func(b *testing.B) {
			images := diskImages(b, c.disks)
			mem := virtiotest.NewMemory(b)
			r, hosts := newBenchHost(b, mem, images)
			for i, a := range r.h.disks {
				virtiotest.Probe(b, mem, hosts[i], a.transport).Start(virtiotest.Setup{})
			}
			if err := r.h.pause(b.Context(), byUser); err != nil {
				b.Fatal(err)
			}
			var times [4][]time.Duration
			state := machineState{KVM: someKVM(c.cpus)}
			size := 0
			for range b.N {
				var err error
				var bytes []byte
				var read machineState
				next := (*stateHost)(nil)
				for i, step := range []func(){
					func() { state.Devices, err = r.h.saveDevices() },
					func() { bytes = plain.Marshal(state) },
					func() { err = plain.Unmarshal(bytes, &read) },
					func() { err = next.h.loadDevices(read.Devices, next.m.disks) },
				} {
					if i == 3 {
						r.close() // so that the images' locks are free
						next, _ = newBenchHost(b, mem, images)
					}
					begin := time.Now()
					step()
					times[i] = append(times[i], time.Since(begin))
					if err != nil {
						b.Fatal(err)
					}
				}
				r, size = next, len(bytes)
			}
			for i, step := range []string{"save", "write", "read", "load"} {
				slices.Sort(times[i])
				b.ReportMetric(float64(times[i][b.N/2].Nanoseconds())/1e3, step+"-µs")
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

// newBenchHost is a stateHost with all disks on bus 0, each with a host of its own.
func newBenchHost(b *testing.B, mem *virtiotest.Memory, images []Disk) (*stateHost, []*virtiotest.Host) {
	r := newStateHost(b, mem, images[:1])
	hosts := r.hosts[:1:1]
	for _, c := range images[1:] {
		d := r.m.newDisk(c, onBus0)
		if err := d.open(b.Context()); err != nil {
			b.Fatal(err)
		}
		hosts = append(hosts, virtiotest.NewHost(b))
		a, err := r.attach(d, hosts[len(hosts)-1])
		if err != nil {
			b.Fatal(err)
		}
		r.m.disks, r.h.disks = append(r.m.disks, d), append(r.h.disks, a)
	}
	r.m.engine.Expect(r.h.demand())
	return r, hosts
}
