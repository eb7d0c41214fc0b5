package kvm

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// StableAPIVersion is what System.APIVersion returns on every kernel since
// 2.6.22. A caller refuses anything else.
const StableAPIVersion = 12

// System is /dev/kvm: what this host's KVM can do. All its methods are safe for
// concurrent use, Close apart.
type System struct {
	fd int
}

// Open opens the KVM device, ordinarily /dev/kvm. It does not look whether path
// really is one: APIVersion fails if it isn't.
//
// The error is an *os.PathError; errors.Is with os.ErrNotExist and
// os.ErrPermission tells the usual causes apart.
func Open(path string) (*System, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return &System{fd: fd}, nil
		case !errors.Is(err, unix.EINTR):
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// Close closes the device. VMs made from it live on. A second Close does nothing.
func (s *System) Close() error { return closeFD(&s.fd) }

// APIVersion returns the KVM API version, StableAPIVersion unless the device is
// something else (api.rst 4.1).
func (s *System) APIVersion() (int, error) { return ioctlValue(s.fd, getAPIVersion, 0) }

// CheckExtension returns 0 when the capability is missing, else 1 or a value the
// capability defines (api.rst 4.4). Some answers depend on the VM: ask
// VM.CheckExtension where there is one.
func (s *System) CheckExtension(c Cap) (int, error) {
	return ioctlValue(s.fd, checkExtension, uint64(c))
}

// SupportedCPUID returns every CPUID leaf that the host and KVM can give a
// guest (api.rst 4.46). Leaves with a topology (1, 4, 0xb, 0x1f, ...) describe the CPU
// the call happened to run on and are the caller's to fill in.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	return growList(func(room int) ([]CPUIDEntry, error) { return readCPUID(s.fd, getSupportedCPUID, room) })
}

// MSRIndexList returns the MSRs that hold a vCPU's state, for saving and
// restoring it (api.rst 4.3). It depends on the host, not on a guest's CPUID, so
// a vCPU may refuse to read or write some of them.
func (s *System) MSRIndexList() ([]uint32, error) { return readMSRList(s.fd, getMSRIndexList) }

// CreateVM makes a VM without memory, vCPUs or devices (api.rst 4.2).
func (s *System) CreateVM() (*VM, error) {
	size, err := ioctlValue(s.fd, getVCPUMmapSize, 0) // api.rst 4.5
	if err != nil {
		return nil, err
	}
	fd, err := ioctlValue(s.fd, createVM, 0)
	if err != nil {
		return nil, err
	}
	return &VM{fd: fd, runSize: size, slotPages: make(map[uint32]uint64)}, nil
}

// closeFD closes *fd once and leaves -1, on which every ioctl fails with EBADF.
func closeFD(fd *int) error {
	if *fd < 0 {
		return nil
	}
	old := *fd
	*fd = -1
	return os.NewSyscallError("close", unix.Close(old))
}
