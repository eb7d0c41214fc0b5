package boot

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/ebb-vmm/ebb/machine/memory"
)

// Where the loader puts what the kernel is handed, all in the first MiB.
const (
	gdtAddr       = 0x500
	startInfoAddr = 0x6000 // PVH start info, module list, memory map
	zeroPageAddr  = 0x7000
	pageTableAddr = 0x9000 // 6 pages: the first 4 GiB in 2 MiB pages
	cmdlineAddr   = 0x20000
	cmdlineMax    = 0x10000

	lowRAMEnd  = 0x9fc00  // below the place where a BIOS keeps its data
	ACPIAddr   = 0xe0000  // where the tables go; up to 1 MiB is reserved for them
	ACPISize   = 0x20000  // bytes
	highMemory = 0x100000 // where kernels begin

	pageSize = 4096
)

// Entry is the state in which the first vCPU starts. The zero registers are zero.
type Entry struct {
	LongMode bool   // else 32-bit protected mode without paging
	RIP      uint64 // guest-physical
	RBX      uint64 // PVH: start info
	RSI      uint64 // 64-bit protocol: zero page
	CR3      uint64 // long mode
	GDT      uint64 // base; selectors CodeSelector and DataSelector are flat segments of the mode
}

// Selectors of the loader's descriptor table, as the 64-bit protocol wants them
// (__BOOT_CS, __BOOT_DS).
const (
	CodeSelector = 0x10
	DataSelector = 0x18
	TaskSelector = 0x20
	GDTLimit     = 6*8 - 1
)

// Kernel is an open kernel file whose headers were found good.
type Kernel struct {
	path   string
	file   *os.File
	size   int64
	format format
}

// format is one of bzImage and elfImage.
type format interface {
	// load copies the kernel into RAM and returns where its entry point is and
	// the range it needs for itself, initrd not included.
	load(k *Kernel, ram *memory.RAM) (loaded, error)

	linux() bool
}

type loaded struct {
	entry      uint64
	pvh        bool
	end        uint64 // first address behind what the kernel needs for itself
	initrdMax  uint64 // highest address of an initrd's last byte
	cmdlineMax uint32
	header     []byte // bzImage's setup header, from 0x1f1
}

// Open opens a kernel file and checks what it is. Close it after the last Load.
func Open(path string) (*Kernel, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	k := &Kernel{path: path, file: f, size: size}
	if k.format, err = detect(k); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// openRegular opens a non-empty regular file for reading. It doesn't wait for
// a FIFO's other end.
func openRegular(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("%s can't be opened: %w", path, errors.Unwrap(err))
	case info.IsDir():
		return nil, 0, fmt.Errorf("%s is a directory, not a file", path)
	case !info.Mode().IsRegular():
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	case info.Size() == 0:
		return nil, 0, fmt.Errorf("%s is empty", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%s can't be opened: %w", path, errors.Unwrap(err))
	}
	return f, info.Size(), nil
}

func detect(k *Kernel) (format, error) {
	var head [0x264]byte
	n, err := k.file.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case n >= 4 && string(head[:4]) == "\x7fELF":
		return parseELF(k)
	case n >= 0x206 && string(head[0x202:0x206]) == "HdrS":
		return parseBzImage(k, head[:n])
	default:
		return nil, errors.New("not a kernel: neither a bzImage nor an ELF file")
	}
}

// Linux reports whether the kernel is certainly Linux, which needs more of KVM
// than a small program does.
func (k *Kernel) Linux() bool { return k.format.linux() }

// CheckInitrd reports why path can't be an initrd, if it can't.
func CheckInitrd(path string) error {
	f, _, err := openRegular(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// Close closes the file.
func (k *Kernel) Close() error { return k.file.Close() }

// Path returns the name the kernel was opened by.
func (k *Kernel) Path() string { return k.path }

// Size returns the file's size in bytes.
func (k *Kernel) Size() int64 { return k.size }

// Content returns the file, from its beginning. Any goroutine.
func (k *Kernel) Content() io.Reader { return io.NewSectionReader(k.file, 0, k.size) }

// Params is what Load hands to the kernel.
type Params struct {
	Initrd   string // file; empty: none
	Cmdline  string
	RSDP     uint64           // ACPI root pointer, guest-physical
	Reserved []memory.Reserve // ranges outside RAM that no driver may claim
}

// Load puts kernel, initrd and everything they are handed into RAM, which is
// zeroed. An error is one sentence and names the file.
func (k *Kernel) Load(ram *memory.RAM, p Params) (Entry, error) {
	l, err := k.format.load(k, ram)
	if err != nil {
		return Entry{}, fmt.Errorf("kernel %s: %w", k.path, err)
	}
	if limit := min(l.cmdlineMax, cmdlineMax-1); uint64(len(p.Cmdline)) > uint64(limit) {
		return Entry{}, fmt.Errorf("the kernel command line has %d bytes, and this kernel takes %d; shorten --append", len(p.Cmdline), limit)
	}
	copy(ram.Bytes(cmdlineAddr, cmdlineMax), p.Cmdline) // RAM is zeroed, so it ends in a zero byte

	var initrd span
	if p.Initrd != "" {
		if initrd, err = loadInitrd(ram, p.Initrd, l); err != nil {
			return Entry{}, err
		}
	}
	e820 := memoryMap(ram, p.Reserved)
	if l.pvh {
		return enterPVH(ram, l, p, initrd, e820), nil
	}
	return enter64(ram, l, p, initrd, e820), nil
}

type span struct{ addr, size uint64 }

// loadInitrd puts the file as high as the kernel allows, above the kernel.
func loadInitrd(ram *memory.RAM, path string, l loaded) (span, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return span{}, fmt.Errorf("initrd: %w", err)
	}
	defer f.Close()
	n := uint64(size)
	top := min(ram.LowSize(), l.initrdMax+1)
	if top < n || (top-n)&^(pageSize-1) < l.end {
		free := uint64(0)
		if top > l.end {
			free = top - l.end
		}
		return span{}, fmt.Errorf("initrd %s has %d MiB and doesn't fit beside the kernel, where %d MiB are free; give the guest more --memory",
			path, (n+1<<20-1)>>20, free>>20)
	}
	at := (top - n) &^ (pageSize - 1)
	if err := readAt(f, ram.Bytes(at, n), 0); err != nil {
		return span{}, fmt.Errorf("reading initrd %s: %w", path, err)
	}
	return span{at, n}, nil
}

// kernelRAM returns guest memory for a part of a kernel. All of it has to lie
// below the 32-bit hole: that is what the first page tables map.
func kernelRAM(ram *memory.RAM, gpa, n uint64) ([]byte, error) {
	if gpa < highMemory || gpa > memory.HoleStart || n > memory.HoleStart-gpa {
		return nil, fmt.Errorf("it needs %#x bytes of memory at %#x; kernels have to lie between 1 MiB and 3 GiB", n, gpa)
	}
	b := ram.Bytes(gpa, n)
	if b == nil {
		return nil, fmt.Errorf("it needs %d MiB of memory and the guest has %d MiB; give it more --memory", (gpa+n+1<<20-1)>>20, ram.Size()>>20)
	}
	return b, nil
}

// readAt fills guest memory from the file.
func (k *Kernel) readAt(dst []byte, off int64) error {
	return truncated(readAt(k.file, dst, off), "the file is truncated")
}

// readAt fills guest memory from a file. Most of the time goes into touching fresh
// memory, so several threads take a piece at a time.
func readAt(f *os.File, dst []byte, off int64) error {
	const piece, maxReaders = 2 << 20, 4
	pieces := (len(dst) + piece - 1) / piece
	var (
		next    atomic.Int64
		readers sync.WaitGroup
		errs    = make([]error, pieces)
	)
	for range min(pieces, maxReaders, runtime.NumCPU()) {
		readers.Go(func() {
			for i := int(next.Add(1)) - 1; i < pieces; i = int(next.Add(1)) - 1 {
				at := i * piece
				_, errs[i] = f.ReadAt(dst[at:min(at+piece, len(dst))], off+int64(at))
			}
		})
	}
	readers.Wait()
	return cmp.Or(errs...)
}

// truncated says what it means that a file ended early.
func truncated(err error, meaning string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New(meaning)
	}
	return err
}

// e820Entry is a range of the memory map, in the layout of a boot_e820_entry
// once encoded.
type e820Entry struct {
	addr, size uint64
	kind       uint32
}

const (
	e820RAM      = 1
	e820Reserved = 2
)

func memoryMap(ram *memory.RAM, reserved []memory.Reserve) []e820Entry {
	m := []e820Entry{
		{0, lowRAMEnd, e820RAM},
		{lowRAMEnd, highMemory - lowRAMEnd, e820Reserved},
		{highMemory, ram.LowSize() - highMemory, e820RAM},
	}
	for _, r := range reserved {
		m = append(m, e820Entry{r.GPA, r.Size, e820Reserved})
	}
	for _, g := range ram.Regions()[1:] {
		m = append(m, e820Entry{g.GPA, uint64(len(g.Bytes)), e820RAM})
	}
	return m
}

// enter64 fills the zero page and the tables long mode needs.
func enter64(ram *memory.RAM, l loaded, p Params, initrd span, e820 []e820Entry) Entry {
	le := binary.LittleEndian
	zp := ram.Bytes(zeroPageAddr, pageSize)
	copy(zp[setupHeader:], l.header)
	zp[zpLoaderType] = 0xff // no number assigned
	le.PutUint32(zp[zpCmdline:], cmdlineAddr)
	le.PutUint32(zp[zpInitrdAddr:], uint32(initrd.addr))
	le.PutUint32(zp[zpInitrdSize:], uint32(initrd.size))
	le.PutUint64(zp[zpRSDP:], p.RSDP)
	zp[zpE820Count] = byte(len(e820))
	for i, e := range e820 {
		b := zp[zpE820+20*i:]
		le.PutUint64(b, e.addr)
		le.PutUint64(b[8:], e.size)
		le.PutUint32(b[16:], e.kind)
	}

	return longMode(ram, l.entry)
}

// longMode fills the tables long mode needs: one PML4, one PDPT, four page
// directories of 512 × 2 MiB, and segments.
func longMode(ram *memory.RAM, entry uint64) Entry {
	const present, writable, large = 1 << 0, 1 << 1, 1 << 7
	le := binary.LittleEndian
	table := func(n uint64) []byte { return ram.Bytes(pageTableAddr+n*pageSize, pageSize) }
	le.PutUint64(table(0), (pageTableAddr+pageSize)|present|writable)
	for i := range uint64(4) {
		le.PutUint64(table(1)[8*i:], (pageTableAddr+(2+i)*pageSize)|present|writable)
		for j := range uint64(512) {
			le.PutUint64(table(2 + i)[8*j:], (i<<30|j<<21)|present|writable|large)
		}
	}
	putGDT(ram, 0x00af9b000000ffff)
	return Entry{LongMode: true, RIP: entry, RSI: zeroPageAddr, CR3: pageTableAddr, GDT: gdtAddr}
}

// Code puts machine code at 1 MiB, to be entered there in long mode and ring 0
// with the first 4 GiB identity-mapped. What a probe of the host needs.
func Code(ram *memory.RAM, code []byte) Entry {
	copy(ram.Bytes(highMemory, uint64(len(code))), code)
	return longMode(ram, highMemory)
}

// enterPVH fills the start info and what it points to.
func enterPVH(ram *memory.RAM, l loaded, p Params, initrd span, e820 []e820Entry) Entry {
	const modules, memmap = startInfoAddr + 0x40, startInfoAddr + 0x100
	le := binary.LittleEndian
	b := ram.Bytes(startInfoAddr, 0x40)
	le.PutUint32(b, 0x336ec578) // magic
	le.PutUint32(b[4:], 1)      // version: with a memory map
	if initrd.size > 0 {
		le.PutUint32(b[12:], 1)
		le.PutUint64(b[16:], modules)
		m := ram.Bytes(modules, 32)
		le.PutUint64(m, initrd.addr)
		le.PutUint64(m[8:], initrd.size)
	}
	le.PutUint64(b[24:], cmdlineAddr)
	le.PutUint64(b[32:], p.RSDP)
	le.PutUint64(b[40:], memmap)
	le.PutUint32(b[48:], uint32(len(e820)))
	for i, e := range e820 {
		m := ram.Bytes(memmap+uint64(24*i), 24)
		le.PutUint64(m, e.addr)
		le.PutUint64(m[8:], e.size)
		le.PutUint32(m[16:], e.kind)
	}
	putGDT(ram, 0x00cf9b000000ffff)
	return Entry{RIP: l.entry, RBX: startInfoAddr, GDT: gdtAddr}
}

// putGDT writes the descriptor table: flat code as given, flat data, and a busy
// task state segment, which VMX insists on.
func putGDT(ram *memory.RAM, code uint64) {
	gdt := ram.Bytes(gdtAddr, GDTLimit+1)
	binary.LittleEndian.PutUint64(gdt[CodeSelector:], code)
	binary.LittleEndian.PutUint64(gdt[DataSelector:], 0x00cf93000000ffff)
	binary.LittleEndian.PutUint64(gdt[TaskSelector:], 0x00008b0000000067)
}
