package kvm

import "golang.org/x/sys/unix"

// Error is an ioctl that failed. It unwraps to the errno.
type Error struct {
	Op    string // the ioctl's name in the kernel's headers, "KVM_CREATE_VM"
	Errno unix.Errno
}

func (e *Error) Error() string { return e.Op + ": " + e.Errno.Error() }

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// request is an ioctl: its name for messages and its number for the kernel.
type request struct {
	name string
	code uint32
}

func (r request) fail(errno unix.Errno) error { return &Error{Op: r.name, Errno: errno} }

// An ioctl number packs direction, argument size, a type letter and a sequence
// number (include/uapi/asm-generic/ioctl.h).
const (
	kvmio = 0xae // KVM's type letter

	dirNone  = 0
	dirWrite = 1 // user space writes the argument, the kernel reads it
	dirRead  = 2
)

func ioc(dir, nr uint32, size uintptr) uint32 {
	return dir<<30 | uint32(size)<<16 | kvmio<<8 | nr
}

func io(nr uint32) uint32          { return ioc(dirNone, nr, 0) }
func ior[T any](nr uint32) uint32  { return ioc(dirRead, nr, sizeOf[T]()) }
func iow[T any](nr uint32) uint32  { return ioc(dirWrite, nr, sizeOf[T]()) }
func iowr[T any](nr uint32) uint32 { return ioc(dirRead|dirWrite, nr, sizeOf[T]()) }

// runCode is KVM_RUN. A constant, because Run is the hot path.
const runCode = kvmio<<8 | 0x80

// The ioctls in use. Numbers are computed from the argument's size, so a struct
// of the wrong size is refused by the kernel (ENOTTY) rather than misread.
var (
	getAPIVersion     = request{"KVM_GET_API_VERSION", io(0x00)}
	createVM          = request{"KVM_CREATE_VM", io(0x01)}
	getMSRIndexList   = request{"KVM_GET_MSR_INDEX_LIST", iowr[uint32](0x02)}
	checkExtension    = request{"KVM_CHECK_EXTENSION", io(0x03)}
	getVCPUMmapSize   = request{"KVM_GET_VCPU_MMAP_SIZE", io(0x04)}
	getSupportedCPUID = request{"KVM_GET_SUPPORTED_CPUID", iowr[listHeader](0x05)}

	createVCPU          = request{"KVM_CREATE_VCPU", io(0x41)}
	getDirtyLog         = request{"KVM_GET_DIRTY_LOG", iow[dirtyLog](0x42)}
	setUserMemoryRegion = request{"KVM_SET_USER_MEMORY_REGION", iow[userspaceMemoryRegion](0x46)}
	setTSSAddr          = request{"KVM_SET_TSS_ADDR", io(0x47)}
	setIdentityMapAddr  = request{"KVM_SET_IDENTITY_MAP_ADDR", iow[uint64](0x48)}
	createIRQChip       = request{"KVM_CREATE_IRQCHIP", io(0x60)}
	irqLine             = request{"KVM_IRQ_LINE", iow[irqLevel](0x61)}
	getIRQChip          = request{"KVM_GET_IRQCHIP", iowr[IRQChip](0x62)}
	setIRQChip          = request{"KVM_SET_IRQCHIP", ior[IRQChip](0x63)} // sic, _IOR in the kernel
	setGSIRouting       = request{"KVM_SET_GSI_ROUTING", iow[listHeader](0x6a)}
	assignIRQFD         = request{"KVM_IRQFD", iow[irqfd](0x76)}
	createPIT2          = request{"KVM_CREATE_PIT2", iow[pitConfig](0x77)}
	assignIOEventFD     = request{"KVM_IOEVENTFD", iow[ioeventfd](0x79)}
	setClock            = request{"KVM_SET_CLOCK", iow[Clock](0x7b)}
	getClock            = request{"KVM_GET_CLOCK", ior[Clock](0x7c)}
	getPIT2             = request{"KVM_GET_PIT2", ior[PITState](0x9f)}
	setPIT2             = request{"KVM_SET_PIT2", iow[PITState](0xa0)}
	clearDirtyLog       = request{"KVM_CLEAR_DIRTY_LOG", iowr[dirtyLogRange](0xc0)}

	getRegs       = request{"KVM_GET_REGS", ior[Regs](0x81)}
	setRegs       = request{"KVM_SET_REGS", iow[Regs](0x82)}
	getSregs      = request{"KVM_GET_SREGS", ior[Sregs](0x83)}
	setSregs      = request{"KVM_SET_SREGS", iow[Sregs](0x84)}
	getMSRs       = request{"KVM_GET_MSRS", iowr[listHeader](0x88)}
	setMSRs       = request{"KVM_SET_MSRS", iow[listHeader](0x89)}
	getFPU        = request{"KVM_GET_FPU", ior[FPU](0x8c)}
	setFPU        = request{"KVM_SET_FPU", iow[FPU](0x8d)}
	getLAPIC      = request{"KVM_GET_LAPIC", ior[LAPIC](0x8e)}
	setLAPIC      = request{"KVM_SET_LAPIC", iow[LAPIC](0x8f)}
	setCPUID2     = request{"KVM_SET_CPUID2", iow[listHeader](0x90)}
	getCPUID2     = request{"KVM_GET_CPUID2", iowr[listHeader](0x91)}
	getMPState    = request{"KVM_GET_MP_STATE", ior[MPState](0x98)}
	setMPState    = request{"KVM_SET_MP_STATE", iow[MPState](0x99)}
	injectNMI     = request{"KVM_NMI", io(0x9a)}
	getVCPUEvents = request{"KVM_GET_VCPU_EVENTS", ior[Events](0x9f)}
	setVCPUEvents = request{"KVM_SET_VCPU_EVENTS", iow[Events](0xa0)}
	getDebugRegs  = request{"KVM_GET_DEBUGREGS", ior[DebugRegs](0xa1)}
	setDebugRegs  = request{"KVM_SET_DEBUGREGS", iow[DebugRegs](0xa2)}
	setTSCKHz     = request{"KVM_SET_TSC_KHZ", io(0xa2)}
	enableCap     = request{"KVM_ENABLE_CAP", iow[capability](0xa3)}
	getTSCKHz     = request{"KVM_GET_TSC_KHZ", io(0xa3)}
	getXSAVE      = request{"KVM_GET_XSAVE", ior[[xsaveSize]byte](0xa4)}
	setXSAVE      = request{"KVM_SET_XSAVE", iow[[xsaveSize]byte](0xa5)}
	getXCRS       = request{"KVM_GET_XCRS", ior[XCRS](0xa6)}
	setXCRS       = request{"KVM_SET_XCRS", iow[XCRS](0xa7)}
	kvmclockCtrl  = request{"KVM_KVMCLOCK_CTRL", io(0xad)}
	getXSAVE2     = request{"KVM_GET_XSAVE2", ior[[xsaveSize]byte](0xcf)}
	setDeviceAttr = request{"KVM_SET_DEVICE_ATTR", iow[deviceAttr](0xe1)}
	getDeviceAttr = request{"KVM_GET_DEVICE_ATTR", iow[deviceAttr](0xe2)} // sic, _IOW in the kernel
)

// listHeader precedes the entries of struct kvm_cpuid2, kvm_msrs and
// kvm_irq_routing: their number and a word of padding or flags.
type listHeader struct {
	count uint32
	_     uint32
}
