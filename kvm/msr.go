package kvm

// Model-specific registers, by index.
const (
	MSRTSC              uint32 = 0x10
	MSRKVMWallClock     uint32 = 0x11
	MSRAPICBase         uint32 = 0x1b
	MSRMiscEnable       uint32 = 0x1a0
	MSRPAT              uint32 = 0x277
	MSRMTRRDefType      uint32 = 0x2ff
	MSRTSCDeadline      uint32 = 0x6e0
	MSRTSCAux           uint32 = 0xc0000103
	MSREFER             uint32 = 0xc0000080
	MSRStar             uint32 = 0xc0000081
	MSRLStar            uint32 = 0xc0000082
	MSRKernelGSBase     uint32 = 0xc0000102
	MSRKVMWallClockNew  uint32 = 0x4b564d00
	MSRKVMSystemTimeNew uint32 = 0x4b564d01
)

// MiscEnableFastString is the bit of MSRMiscEnable that firmware sets.
const MiscEnableFastString uint64 = 1 << 0

// maxMSRs is what one ioctl takes: the kernel wants fewer than its MAX_IO_MSRS, 256.
const maxMSRs = 255

// MSREntry is a model-specific register (struct kvm_msr_entry).
type MSREntry struct {
	Index uint32
	_     uint32
	Data  uint64
}

// GetMSRs fills Data of each entry from its Index and returns how many it could
// read, in order (api.rst 4.18). n < len(entries) with a nil error means that the vCPU doesn't
// have entries[n]; those behind it were not tried.
func (c *VCPU) GetMSRs(entries []MSREntry) (n int, err error) {
	return transferMSRs(c.fd, getMSRs, entries)
}

// SetMSRs writes the registers in order and returns how many were accepted
// (api.rst 4.19). n < len(entries) with a nil error means that entries[n] was refused; those behind it were not tried.
func (c *VCPU) SetMSRs(entries []MSREntry) (n int, err error) {
	return transferMSRs(c.fd, setMSRs, entries)
}

// transferMSRs does what a single ioctl would do if it took any number.
func transferMSRs(fd int, req request, entries []MSREntry) (done int, err error) {
	for done < len(entries) {
		part := entries[done:min(done+maxMSRs, len(entries))]
		l := newList[listHeader, MSREntry](len(part))
		l.header.count = uint32(len(part))
		copy(l.entries, part)
		n, err := l.ioctl(fd, req)
		if err != nil {
			return done, err
		}
		copy(part[:n], l.entries)
		done += n
		if n < len(part) {
			break
		}
	}
	return done, nil
}

func readMSRList(fd int, req request) ([]uint32, error) {
	return growList(func(n int) ([]uint32, error) {
		l := newList[uint32, uint32](n)
		*l.header = uint32(n)
		if _, err := l.ioctl(fd, req); err != nil {
			return nil, err
		}
		return l.entries[:*l.header], nil
	})
}
