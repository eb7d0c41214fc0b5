package machine

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/virtio/pci"
)

// maxGSIs bounds the routing table; KVM has room for 4096 on every kernel ebb runs on.
const maxGSIs = 4096

// interrupts is the routing of interrupt lines: which GSI leads to which pin of
// the interrupt controllers, and which message an irqfd stands for.
type interrupts struct {
	vm *kvm.VM

	mu     sync.Mutex
	pins   []kvm.Route
	routes map[uint32]kvm.Route // of messages, by GSI
	used   map[uint32]bool      // GSIs of open vectors
}

// newInterrupts routes the ISA lines as a PC does: to both 8259s, and to the I/O
// APIC pin of the same number, but for the timer, which is at pin 2.
func newInterrupts(vm *kvm.VM) (*interrupts, error) {
	r := &interrupts{vm: vm, routes: map[uint32]kvm.Route{}, used: map[uint32]bool{}}
	for gsi := range uint32(gsiPins) {
		if gsi < 8 {
			r.pins = append(r.pins, kvm.RouteIRQChip(gsi, kvm.IRQChipPICMaster, gsi))
		} else if gsi < 16 {
			r.pins = append(r.pins, kvm.RouteIRQChip(gsi, kvm.IRQChipPICSlave, gsi-8))
		}
		switch gsi {
		case 0:
			r.pins = append(r.pins, kvm.RouteIRQChip(0, kvm.IRQChipIOAPIC, 2))
		case 2: // the 8259s' cascade; its I/O APIC pin is the timer's
		default:
			r.pins = append(r.pins, kvm.RouteIRQChip(gsi, kvm.IRQChipIOAPIC, gsi))
		}
	}
	return r, r.load()
}

// load hands the table to KVM. Preconditions: mu is held, or nobody else knows r.
func (r *interrupts) load() error {
	table := append([]kvm.Route(nil), r.pins...)
	for _, m := range r.routes {
		table = append(table, m)
	}
	return r.vm.SetGSIRouting(table)
}

// line returns a function that drives an ISA line.
func (r *interrupts) line(gsi uint32, failed func(error)) func(bool) {
	return func(high bool) {
		if err := r.vm.IRQLine(gsi, high); err != nil {
			failed(fmt.Errorf("interrupt %d: %w", gsi, err))
		}
	}
}

// vector is one message-signalled interrupt: an eventfd that KVM turns into the
// message of its GSI's route.
type vector struct {
	irqs *interrupts
	gsi  uint32
	fd   int
}

// newVector takes a free GSI. The vector delivers nothing before SetRoute.
func (r *interrupts) newVector() (pci.Vector, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gsi := uint32(gsiPins)
	for r.used[gsi] {
		gsi++
	}
	if gsi >= maxGSIs {
		return nil, fmt.Errorf("all %d interrupt lines are in use", maxGSIs)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd for an interrupt: %w", err)
	}
	if err := r.vm.AssignIRQFD(fd, gsi); err != nil {
		unix.Close(fd)
		return nil, err
	}
	r.used[gsi] = true
	return &vector{irqs: r, gsi: gsi, fd: fd}, nil
}

// one is what Signal writes: an eventfd adds it to its counter.
var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// Signal implements pci.Vector. A counter too full to be added to is signalled
// already, so there is no error to handle.
func (v *vector) Signal() { _, _ = unix.Write(v.fd, one) }

// SetRoute implements pci.Vector.
func (v *vector) SetRoute(addr uint64, data uint32) error {
	v.irqs.mu.Lock()
	defer v.irqs.mu.Unlock()
	route := kvm.RouteMSI(v.gsi, addr, data)
	if v.irqs.routes[v.gsi] == route {
		return nil
	}
	v.irqs.routes[v.gsi] = route
	err := v.irqs.load()
	if err != nil { // KVM has the old table, and is asked again
		delete(v.irqs.routes, v.gsi)
	}
	return err
}

// Close implements pci.Vector.
func (v *vector) Close() error {
	v.irqs.mu.Lock()
	defer v.irqs.mu.Unlock()
	err := v.irqs.vm.DeassignIRQFD(v.fd, v.gsi)
	unix.Close(v.fd)
	delete(v.irqs.used, v.gsi)
	delete(v.irqs.routes, v.gsi)
	return err
}
