package kvm

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// FPU is the x87 and SSE state (struct kvm_fpu). XSAVE holds it as well.
type FPU struct {
	FPR        [8][16]byte
	FCW        uint16
	FSW        uint16
	FTWX       uint8 // abridged, as in FXSAVE
	_          uint8
	LastOpcode uint16
	LastIP     uint64
	LastDP     uint64
	XMM        [16][16]byte
	MXCSR      uint32
	_          uint32
}

// GetFPU reads the x87 and SSE state (api.rst 4.22). KVM leaves MXCSR zero.
func (c *VCPU) GetFPU() (FPU, error) { return ioctlGet[FPU](c.fd, getFPU) }

// SetFPU writes the x87 and SSE state (api.rst 4.23), MXCSR apart, which only
// SetXSAVE writes.
func (c *VCPU) SetFPU(f FPU) error { return ioctlSet(c.fd, setFPU, f) }

const (
	// xsaveSize is sizeof(struct kvm_xsave) without its flexible tail, and the
	// least that an XSAVE area has.
	xsaveSize = 4096
	// xsaveMin is the legacy region and the header, which say what else there is.
	xsaveMin = 512 + 64
)

// GetXSAVE reads the extended state in XSAVE's standard format, at the host's
// offsets (CPUID leaf 0xd) (api.rst 4.42 and 4.134, needs CapXSAVE). Its length
// is at least 4096 bytes and the same for all vCPUs of a VM.
func (c *VCPU) GetXSAVE() ([]byte, error) {
	area := make([]byte, c.xsaveSize)
	req := getXSAVE
	if len(area) > xsaveSize {
		req = getXSAVE2 // KVM_GET_XSAVE would stop at 4096
	}
	if err := ioctlBytes(c.fd, req, area); err != nil {
		return nil, err
	}
	return area, nil
}

// SetXSAVE writes the extended state (api.rst 4.43, needs CapXSAVE). An area shorter than
// GetXSAVE's (at least 576 bytes, the legacy region and the header) is as if
// followed by zeroes; one that is longer doesn't fit this host and is refused.
func (c *VCPU) SetXSAVE(area []byte) error {
	if len(area) < xsaveMin || len(area) > c.xsaveSize {
		return fmt.Errorf("XSAVE area of %d bytes where this vCPU takes %d to %d: %w", len(area), xsaveMin, c.xsaveSize,
			setXSAVE.fail(unix.EINVAL))
	}
	if len(area) < c.xsaveSize { // the kernel reads them all
		area = append(make([]byte, 0, c.xsaveSize), area...)[:c.xsaveSize]
	}
	return ioctlBytes(c.fd, setXSAVE, area)
}

// XCR is an extended control register (struct kvm_xcr).
type XCR struct {
	Index uint32 // 0: XCR0
	_     uint32
	Value uint64
}

// XCRS are the extended control registers (struct kvm_xcrs).
type XCRS struct {
	Count uint32 // of Regs in use
	Flags uint32 // 0
	Regs  [16]XCR
	_     [16]uint64
}

// GetXCRS reads the extended control registers (api.rst 4.44, needs CapXCRS).
func (c *VCPU) GetXCRS() (XCRS, error) { return ioctlGet[XCRS](c.fd, getXCRS) }

// SetXCRS writes the extended control registers (api.rst 4.45, needs CapXCRS).
// The vCPU's CPUID must allow the value, so after SetCPUID.
func (c *VCPU) SetXCRS(x XCRS) error { return ioctlSet(c.fd, setXCRS, x) }
