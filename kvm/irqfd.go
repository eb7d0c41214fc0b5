package kvm

// Kinds of Route.
const (
	routeTypeIRQChip uint32 = 1
	routeTypeMSI     uint32 = 2
)

// Route says where a GSI leads (struct kvm_irq_routing_entry). Made by
// RouteIRQChip and RouteMSI.
type Route struct {
	GSI  uint32
	kind uint32
	_    uint32 // flags
	_    uint32
	to   [8]uint32 // union of struct kvm_irq_routing_irqchip, kvm_irq_routing_msi, ...
}

// RouteIRQChip leads gsi to an input pin of an interrupt controller.
func RouteIRQChip(gsi, chip, pin uint32) Route {
	return Route{GSI: gsi, kind: routeTypeIRQChip, to: [8]uint32{chip, pin}}
}

// RouteMSI leads gsi to the message that stores data at addr, 0xfee00000 and up
// (Intel SDM vol. 3, "Message Signalled Interrupts").
func RouteMSI(gsi uint32, addr uint64, data uint32) Route {
	return Route{GSI: gsi, kind: routeTypeMSI, to: [8]uint32{uint32(addr), uint32(addr >> 32), data}}
}

// SetGSIRouting replaces the whole routing table, the default that
// CreateIRQChip made included (api.rst 4.52). At most CheckExtension(CapIRQRouting) GSIs and
// as many routes. It takes effect before it returns, and may wait for interrupts on their way: 10 µs
// to milliseconds.
func (vm *VM) SetGSIRouting(routes []Route) error {
	l := newList[listHeader, Route](len(routes))
	l.header.count = uint32(len(routes))
	copy(l.entries, routes)
	_, err := l.ioctl(vm.fd, setGSIRouting)
	return err
}

const irqfdDeassign uint32 = 1 << 0

// irqfd is struct kvm_irqfd.
type irqfd struct {
	fd    uint32
	gsi   uint32
	flags uint32
	_     [20]byte // resamplefd
}

// AssignIRQFD raises an edge on gsi whenever the eventfd fd is written to (api.rst 4.75).
// One eventfd serves one GSI (EBUSY). The GSI need not be routed yet.
func (vm *VM) AssignIRQFD(fd int, gsi uint32) error {
	return ioctlSet(vm.fd, assignIRQFD, irqfd{fd: uint32(fd), gsi: gsi})
}

// DeassignIRQFD undoes it. Once it returns no signal that
// was written to fd before is still on its way.
func (vm *VM) DeassignIRQFD(fd int, gsi uint32) error {
	return ioctlSet(vm.fd, assignIRQFD, irqfd{fd: uint32(fd), gsi: gsi, flags: irqfdDeassign})
}
