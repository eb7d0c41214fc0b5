package kvm

// The interrupt controllers of CreateIRQChip, as GetIRQChip and RouteIRQChip name them.
const (
	IRQChipPICMaster uint32 = 0 // 8259A, pins 0-7
	IRQChipPICSlave  uint32 = 1 // 8259A, pins 8-15 of the pair, 0-7 of its own
	IRQChipIOAPIC    uint32 = 2 // pins 0-23, at 0xfec00000
)

// IRQChip is the state of one interrupt controller (struct kvm_irqchip), opaque
// but for its ID.
type IRQChip struct {
	ID   uint32 // IRQChipPICMaster, IRQChipPICSlave or IRQChipIOAPIC
	_    uint32
	Data [512]byte
}

// CreateIRQChip makes an I/O APIC, two PICs, and a local APIC for every vCPU
// created afterwards; GSI 0-15 go to both kinds, 16-23 to the I/O APIC
// (api.rst 4.24). Before the first vCPU.
func (vm *VM) CreateIRQChip() error {
	_, err := ioctlValue(vm.fd, createIRQChip, 0)
	return err
}

// GetIRQChip reads a controller's state (api.rst 4.26).
func (vm *VM) GetIRQChip(id uint32) (IRQChip, error) {
	chip := IRQChip{ID: id}
	_, err := ioctlPtr(vm.fd, getIRQChip, &chip)
	return chip, err
}

// SetIRQChip writes a controller's state (api.rst 4.27).
func (vm *VM) SetIRQChip(chip IRQChip) error { return ioctlSet(vm.fd, setIRQChip, chip) }

// irqLevel is struct kvm_irq_level.
type irqLevel struct {
	gsi   uint32
	level uint32
}

// IRQLine sets the level of a GSI's input line (api.rst 4.25). An edge is two
// calls, true then false.
func (vm *VM) IRQLine(gsi uint32, level bool) error {
	l := irqLevel{gsi: gsi}
	if level {
		l.level = 1
	}
	return ioctlSet(vm.fd, irqLine, l)
}

// PITSpeakerDummy makes the PIT answer port 0x61 as well, with a silent speaker.
const PITSpeakerDummy uint32 = 1 << 0

// pitConfig is struct kvm_pit_config.
type pitConfig struct {
	flags uint32
	_     [15]uint32
}

// PITState is the state of the i8254 timer (struct kvm_pit_state2).
type PITState struct {
	Channels [3]PITChannel
	Flags    uint32
	_        [9]uint32
}

// PITChannel is one counter of the i8254 (struct kvm_pit_channel_state).
type PITChannel struct {
	Count         uint32 // up to 65536
	LatchedCount  uint16
	CountLatched  uint8
	StatusLatched uint8
	Status        uint8
	ReadState     uint8
	WriteState    uint8
	WriteLatch    uint8
	RWMode        uint8
	Mode          uint8
	BCD           uint8
	Gate          uint8
	CountLoadTime int64 // ns, host monotonic; KVM restarts the count when it is set
}

// CreatePIT2 makes an i8254 timer wired to GSI 0 (api.rst 4.71, needs CapPIT2).
// flags is 0 or PITSpeakerDummy. After CreateIRQChip.
func (vm *VM) CreatePIT2(flags uint32) error {
	return ioctlSet(vm.fd, createPIT2, pitConfig{flags: flags})
}

// GetPIT2 reads the timer's state (api.rst 4.72).
func (vm *VM) GetPIT2() (PITState, error) { return ioctlGet[PITState](vm.fd, getPIT2) }

// SetPIT2 writes the timer's state (api.rst 4.73).
func (vm *VM) SetPIT2(s PITState) error { return ioctlSet(vm.fd, setPIT2, s) }
