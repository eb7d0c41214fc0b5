package kvm

const (
	ioeventfdDatamatch uint32 = 1 << 0
	ioeventfdPIO       uint32 = 1 << 1
	ioeventfdDeassign  uint32 = 1 << 2
)

// IOEventFD is a guest address whose stores signal an eventfd instead of
// leaving to user space.
type IOEventFD struct {
	Addr  uint64 // guest-physical address, or port with PIO
	Len   uint32 // width of the store, 1, 2, 4 or 8 bytes; 0: any (needs CapIOEventFDAnyLength)
	FD    int    // eventfd
	PIO   bool   // a port rather than memory
	Match bool   // only stores of the value Data; not with Len 0
	Data  uint64
}

// ioeventfd is struct kvm_ioeventfd.
type ioeventfd struct {
	datamatch uint64
	addr      uint64
	length    uint32
	fd        int32
	flags     uint32
	_         [36]byte
}

func (e IOEventFD) abi(flags uint32) ioeventfd {
	k := ioeventfd{addr: e.Addr, length: e.Len, fd: int32(e.FD), flags: flags}
	if e.PIO {
		k.flags |= ioeventfdPIO
	}
	if e.Match {
		k.flags |= ioeventfdDatamatch
		k.datamatch = e.Data
	}
	return k
}

// AssignIOEventFD arms e (api.rst 4.59). The same address may be armed several
// times only with different Data (EEXIST).
func (vm *VM) AssignIOEventFD(e IOEventFD) error {
	return ioctlSet(vm.fd, assignIOEventFD, e.abi(0))
}

// DeassignIOEventFD disarms e; all fields are those of the assignment (ENOENT).
// The eventfd keeps what was already signalled.
func (vm *VM) DeassignIOEventFD(e IOEventFD) error {
	return ioctlSet(vm.fd, assignIOEventFD, e.abi(ioeventfdDeassign))
}
