package kvm

import (
	"sync"

	"golang.org/x/sys/unix"
)

// VM is one virtual machine. Its methods may be called from any goroutine,
// several at once, Close apart.
type VM struct {
	fd      int
	runSize int // bytes of a vCPU's kvm_run mapping

	// slotPages is the size of each memory slot, kept because the kernel writes a
	// dirty bitmap of the slot's length, not of the caller's.
	slotMu    sync.RWMutex
	slotPages map[uint32]uint64
}

// Close drops the handle. The kernel keeps the VM until its vCPUs are closed
// too. Guest memory is the caller's to unmap, afterwards. A second Close does nothing.
func (vm *VM) Close() error { return closeFD(&vm.fd) }

// CheckExtension is System.CheckExtension for this VM (api.rst 4.4,
// CapCheckExtensionVM).
func (vm *VM) CheckExtension(c Cap) (int, error) {
	return ioctlValue(vm.fd, checkExtension, uint64(c))
}

// capability is struct kvm_enable_cap.
type capability struct {
	cap  uint32
	_    uint32 // flags
	args [4]uint64
	_    [64]byte
}

// EnableCap turns a capability of the VM on, with up to 4 arguments that it defines
// (api.rst 4.37 and chapter 7). Most must come before the first vCPU.
func (vm *VM) EnableCap(c Cap, args ...uint64) error { return enableCapability(vm.fd, c, args) }

func enableCapability(fd int, c Cap, args []uint64) error {
	req := request{enableCap.name + "(" + c.String() + ")", enableCap.code}
	e := capability{cap: uint32(c)}
	if len(args) > len(e.args) {
		return req.fail(unix.EINVAL)
	}
	copy(e.args[:], args)
	return ioctlSet(fd, req, e)
}

// SetTSSAddr gives Intel hosts without unrestricted guest mode three pages of
// guest-physical space below 4 GiB, where no memory slot may be (api.rst 4.36).
// Before the first vCPU.
func (vm *VM) SetTSSAddr(addr uint64) error {
	_, err := ioctlValue(vm.fd, setTSSAddr, addr)
	return err
}

// SetIdentityMapAddr gives the same hosts one page for an identity page table,
// under the same conditions (api.rst 4.40).
func (vm *VM) SetIdentityMapAddr(addr uint64) error {
	return ioctlSet(vm.fd, setIdentityMapAddr, addr)
}
