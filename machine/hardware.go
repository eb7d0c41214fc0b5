package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-vmm/ebb/blk"
	"github.com/ebb-vmm/ebb/kvm"
	"github.com/ebb-vmm/ebb/machine/acpi"
	"github.com/ebb-vmm/ebb/machine/boot"
	"github.com/ebb-vmm/ebb/machine/bus"
	"github.com/ebb-vmm/ebb/machine/chipset"
	"github.com/ebb-vmm/ebb/machine/memory"
	"github.com/ebb-vmm/ebb/virtio"
)

// hardware is everything a reset replaces: memory, vCPUs, interrupt controllers,
// devices. A guest's reset is new hardware on the same disks, so no state can
// survive it.
type hardware struct {
	log   *slog.Logger
	vm    *kvm.VM
	ram   *memory.RAM
	irqs  *interrupts
	ports bus.Bus
	mmio  bus.Bus
	pci   *pciBus

	serial *chipset.Serial
	power  *chipset.Power
	cmos   *chipset.CMOS
	disks  []*attached // those given at start; fixed before the vCPUs start
	slots  []*slot     // hotplug slots; fixed before the vCPUs start
	moving atomic.Bool // there is an Outgoing: what is plugged in now takes no requests, as the image may be the other side's

	cpuids [][]kvm.CPUIDEntry // what each vCPU was given
	traits kvmTraits          // what saving and loading build on

	gate *gate
	cpus sync.WaitGroup

	once sync.Once
	over chan struct{} // closed when the guest has ended
	end  End
	err  error
}

// attached is a disk in this hardware.
type attached struct {
	disk      *disk
	device    *blk.Device
	transport *virtio.PCI
	card      *card // in a hotplug slot, where it can be pulled; else nil
}

// newHardware builds the machine up to the point where the vCPUs can start. On
// error nothing is left of it.
func newHardware(m *Machine) (*hardware, error) {
	h := &hardware{log: m.cfg.Log, gate: newGate(), over: make(chan struct{})}
	if err := h.build(m); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *hardware) build(m *Machine) (err error) {
	if h.vm, err = m.kvm.CreateVM(); err != nil {
		return err
	}
	if err = h.addMemory(m.cfg.Memory); err != nil {
		return err
	}
	// Reading the kernel is half of the work, and needs nothing of the rest.
	var (
		entry   boot.Entry
		loadErr error
		loading sync.WaitGroup
	)
	if m.kernel == nil { // memory and state come from another host
		return h.addDevices(m)
	}
	loading.Go(func() { entry, loadErr = h.loadKernel(m) })
	err = h.addDevices(m)
	if loading.Wait(); err != nil || loadErr != nil {
		return errors.Join(loadErr, err)
	}
	return enterKernel(h.gate.cpus[0].kvm, entry)
}

// addDevices builds everything around memory.
func (h *hardware) addDevices(m *Machine) error {
	if err := h.addInterruptControllers(); err != nil {
		return err
	}
	if err := h.addChipset(); err != nil {
		return err
	}
	m.mu.Lock()
	disks := m.disks[:len(m.cfg.Disks)] // AddDisk and RemoveDisk never touch those given at start
	m.mu.Unlock()
	for i, d := range disks {
		if err := h.addDisk(m, d, i); err != nil {
			return err
		}
	}
	if err := h.addSlots(m); err != nil {
		return err
	}
	return h.addCPUs(m)
}

func (h *hardware) addMemory(size uint64) (err error) {
	if h.ram, err = memory.New(size); err != nil {
		return err
	}
	for slot, r := range h.ram.Regions() {
		err = h.vm.SetUserMemoryRegion(kvm.MemoryRegion{Slot: uint32(slot), GuestPhysAddr: r.GPA, Size: uint64(len(r.Bytes)), Memory: r.Bytes})
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *hardware) addInterruptControllers() (err error) {
	if err = h.vm.SetIdentityMapAddr(kvmPages); err != nil {
		return err
	}
	if err = h.vm.SetTSSAddr(kvmPages + kvm.PageSize); err != nil {
		return err
	}
	if err = h.vm.CreateIRQChip(); err != nil {
		return err
	}
	if err = h.vm.CreatePIT2(kvm.PITSpeakerDummy); err != nil {
		return err
	}
	h.irqs, err = newInterrupts(h.vm)
	return err
}

func (h *hardware) addChipset() (err error) {
	line := func(gsi uint32) chipset.Line {
		return h.irqs.line(gsi, func(err error) { h.ended(0, err) })
	}
	reset := func() { h.ended(Reset, nil) }
	h.serial = chipset.NewSerial(line(gsiSerial))
	h.power = chipset.NewPower(line(gsiSCI), func() { h.ended(PoweredOff, nil) })
	h.cmos = chipset.NewCMOS(time.Now)
	for _, d := range []struct {
		port, n uint64
		handler bus.Handler
	}{
		{portSerial, 8, h.serial},
		{portPM, chipset.PM1PortCount, h.power},
		{portCMOS, 2, h.cmos},
		{portI8042, 1, chipset.I8042{Reset: reset}},
		{portPanic, 1, chipset.PVPanic{Panicked: func() { h.ended(Panicked, nil) }}},
	} {
		if err = h.ports.Add(d.port, d.n, d.handler); err != nil {
			return err
		}
	}
	h.pci, err = newPCIBus(h.vm, h.irqs, &h.ports, &h.mmio, reset)
	return err
}

func (h *hardware) loadKernel(m *Machine) (boot.Entry, error) {
	tables, rsdp, err := acpi.Build(acpi.Machine{
		CPUs: m.cfg.CPUs, LocalAPIC: lapicAddr, IOAPIC: ioapicAddr,
		ECAM: ecamBase, Buses: pciBuses(m.cfg.HotplugSlots), MMIOFirst: mmioStart, MMIOEnd: mmioEnd,
		SCI: gsiSCI, PM1Event: portPM, PM1Control: portPM + chipset.PM1ControlOff, SleepTypeS5: chipset.SleepTypeS5,
		ResetPort: portReset, ResetValue: resetValue,
		Serial: portSerial, SerialIRQ: gsiSerial, CMOS: portCMOS, CMOSIRQ: gsiCMOS, PanicPort: portPanic, IRQ0ToPin2: true,
	}, boot.ACPIAddr, boot.ACPISize)
	if err != nil {
		return boot.Entry{}, err
	}
	copy(h.ram.Bytes(boot.ACPIAddr, boot.ACPISize), tables)
	return m.kernel.Load(h.ram, boot.Params{
		Initrd: m.cfg.Initrd, Cmdline: m.cfg.Cmdline, RSDP: rsdp,
		Reserved: []memory.Reserve{{GPA: ecamBase, Size: ecamSize}},
	})
}

func (h *hardware) addCPUs(m *Machine) error {
	if h.cpuids = m.cpuids; h.cpuids != nil && len(h.cpuids) != m.cfg.CPUs {
		return fmt.Errorf("CPUID for %d vCPUs, not %d", len(h.cpuids), m.cfg.CPUs)
	}
	supported, err := m.kvm.SupportedCPUID()
	if err != nil {
		return err
	}
	deadline, err := m.kvm.CheckExtension(kvm.CapTSCDeadlineTimer)
	if err != nil {
		return err
	}
	for id := range m.cfg.CPUs {
		k, err := h.vm.CreateVCPU(id)
		if err != nil {
			return err
		}
		h.gate.cpus = append(h.gate.cpus, &vcpu{id: id, kvm: k, ports: &h.ports, mmio: &h.mmio, gate: h.gate, ended: h.ended, log: h.log})
		if m.cpuids == nil {
			h.cpuids = append(h.cpuids, cpuid(supported, id, m.cfg.CPUs, deadline > 0))
			if emulated() {
				withoutPVEOI(h.cpuids[id])
			}
		}
		if err := prepareCPU(k, h.cpuids[id]); err != nil {
			return fmt.Errorf("vCPU %d: %w", id, err)
		}
	}
	return h.traits.learn(m.kvm, h.vm, h.gate.cpus[0].kvm)
}

// start lets the vCPUs go, and what they write to the console until the guest is over. When all of that is
// written, or ctx has ended, it closes written. With held they wait at the gate. Call it once.
func (h *hardware) start(ctx context.Context, console *consoleWriter, held cause) (written <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		console.pass(ctx, h.serial)
	}()
	for _, c := range h.gate.cpus {
		h.cpus.Go(c.run)
	}
	h.gate.wait() // each vCPU has its thread now, for who kicks it or prefers it
	h.gate.hold(held)
	h.gate.release(notStarted)
	return done
}

// ended says that the guest is over; what is said first counts. Any goroutine.
func (h *hardware) ended(e End, err error) {
	h.once.Do(func() {
		h.end, h.err = e, err
		h.gate.hold(guestOver)
		close(h.over)
	})
}

// close takes the machine apart. Preconditions: start was not called, or ended
// was. It returns when no request is in flight in any disk: until then the
// kernel may write into guest memory.
func (h *hardware) close() error {
	h.gate.hold(guestOver)
	h.cpus.Wait()
	errs := []error{together(len(h.disks)+len(h.slots), func(i int) error { // each that hangs is named
		if i < len(h.disks) {
			return h.takeApart(h.disks[i])
		}
		return h.slots[i-len(h.disks)].close()
	})}
	if h.serial != nil {
		h.serial.Close()
	}
	for _, c := range h.gate.cpus {
		errs = append(errs, c.kvm.Close())
	}
	if h.vm != nil {
		errs = append(errs, h.vm.Close())
	}
	if h.ram != nil {
		h.ram.Close()
	}
	return errors.Join(errs...)
}

// pause stops the vCPUs for a cause, then the disks. If ctx ends first everything goes on.
func (h *hardware) pause(ctx context.Context, c cause) error {
	h.gate.hold(c)
	h.gate.wait()
	devices := h.devices()
	if err := together(len(devices), func(i int) error { return devices[i].device.Pause(ctx) }); err != nil {
		h.resume(c)
		return err
	}
	return nil
}

// demand is what the ports of the disks given at start will have.
func (h *hardware) demand() (n int) {
	for _, a := range h.disks {
		for _, size := range a.device.QueueSizes() {
			n += int(size)
		}
	}
	return n
}

// resume takes causes back, and has the disks go on.
func (h *hardware) resume(c cause) {
	h.serial.Let()
	h.gate.release(c) // before the disks: what they do the guest need not stand for
	for _, d := range h.devices() {
		d.device.Resume()
	}
}

// together runs f(0) to f(n-1) at once, since each may wait, and returns what failed, in this order.
func together(n int, f func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}
