package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/lab/wire"
)

const qemuProgram = "qemu-system-x86_64"

// qemu describes the outer machine. Files are inherited, not named, so that nothing is left behind even if all of us
// are killed.
type qemu struct {
	options Options
	kernel  guest.Kernel
	initrd  *os.File   // a memfd
	scratch *os.File   // an unlinked file, or nil
	ports   []*os.File // sockets for control, stdin and log
	shares  []share
}

// share is a virtio-fs device: its tag and the abstract name of its server's socket.
type share struct{ tag, socket string }

func (q *qemu) closeFiles() {
	for _, f := range append([]*os.File{q.initrd, q.scratch}, q.ports...) {
		if f != nil {
			f.Close()
		}
	}
}

// start launches QEMU.
func (q *qemu) start() (*process, error) {
	program, err := exec.LookPath(qemuProgram)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	inherit := func(f *os.File) int {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		return 2 + len(cmd.ExtraFiles)
	}
	o := q.options
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm,+npt," + noXSAVE + "," + noCRC32,
		"-smp", fmt.Sprint(o.CPUs + reservedCPUs), "-m", fmt.Sprint(o.MemoryMiB),
		"-object", fmt.Sprintf("memory-backend-memfd,id=ram,size=%dM,share=on", o.MemoryMiB), // shared with virtiofsd
		"-machine", "q35,memory-backend=ram",
		// The ELF file boots by PVH: nothing to uncompress in the emulator.
		"-kernel", q.kernel.Vmlinux,
		"-initrd", fmt.Sprintf("/proc/self/fd/%d", inherit(q.initrd)),
		"-append", strings.TrimSpace("console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable random.trust_cpu=on " +
			"cryptomgr.notests lsm= audit=0 no_timer_check " + o.Append),
		"-device", "virtio-serial-pci",
	}
	for i, name := range []string{wire.ControlPort, wire.StdinPort} {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=port%d,fd=%d", i, inherit(q.ports[i])),
			"-device", fmt.Sprintf("virtserialport,chardev=port%d,name=%s", i, name))
	}
	args = append(args, "-chardev", fmt.Sprintf("socket,id=log,fd=%d", inherit(q.ports[2])), "-serial", "chardev:log")
	for i, s := range q.shares {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=fs%d,path=%s,abstract=on", i, s.socket),
			"-device", fmt.Sprintf("vhost-user-fs-pci,chardev=fs%d,tag=%s,queue-size=1024", i, s.tag))
	}
	for i, spec := range o.Drives {
		args = append(args, "-drive", fmt.Sprintf("%s,if=none,id=drive%d", spec, i),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=drive%d,serial=drive%d", i, i))
	}
	if q.scratch != nil {
		args = append(args,
			"-drive", fmt.Sprintf("file=/proc/self/fd/%d,format=raw,if=none,id=scratch,cache=unsafe,discard=unmap", inherit(q.scratch)),
			"-device", "virtio-blk-pci,drive=scratch,serial="+wire.ScratchSerial)
	}
	if o.Cable != nil {
		args = append(args, "-netdev", fmt.Sprintf("socket,id=cable,fd=%d", inherit(o.Cable.socket)),
			"-device", "virtio-net-pci,netdev=cable,mac="+o.Cable.mac)
	}
	cmd.Args = append(append(cmd.Args, args...), o.QEMU...)
	return startProcess(cmd)
}

// SlowDrive is a Drive on a raw file that does iops requests per second, one after the other: 5 ms each at 200.
func SlowDrive(file string, iops int) string {
	return fmt.Sprintf("file=%s,format=raw,throttling.iops-total=%d", file, iops)
}

// SharedDrive is a Drive on a raw file that several labs may have at once, as hosts have a disk of a storage network.
func SharedDrive(file string) string {
	return fmt.Sprintf("file=%s,format=raw,cache=none,file.locking=off", file)
}

// LatentDrive is a Drive that keeps nothing, and answers any number of requests each after the same time.
func LatentDrive(sizeBytes int64, latencyNanoseconds int64) string {
	return fmt.Sprintf("driver=null-aio,size=%d,latency-ns=%d,read-zeroes=on", sizeBytes, latencyNanoseconds)
}

// Available says what this machine lacks to run a lab, in one sentence, or nil.
func Available() error {
	if _, err := exec.LookPath(qemuProgram); err != nil {
		return errors.New(qemuProgram + " is not installed (Debian: apt-get install qemu-system-x86)")
	}
	if _, err := virtiofsdPath(); err != nil {
		return err
	}
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New("the go command is missing: the lab's agent is compiled when it is needed")
	}
	return nil
}

// noXSAVE takes XSAVE and what builds on it from the lab's processor. With it, a guest's kernel finds CPUID leaf 0xd at odds
// with the state components it has just enabled, as if its XSETBV had not been intercepted; vector registers would then
// be lost when it switches tasks. That is inferred from the guest's warning. Without XSAVE kernels use FXSAVE.
const noXSAVE = "-xsave,-xsaveopt,-xsavec,-xgetbv1,-avx,-avx2,-f16c,-fma"

// noCRC32 takes the instruction for CRC-32C, which comes with SSE 4.2. QEMU computes it bit by bit, five times as slowly as a
// program with a table, and what a migration sends has checksums.
const noCRC32 = "-sse4.2"

// reservedCPUs is how many processors the lab has beside those the command sees: tests/lab/agent/cpus.go says why.
const reservedCPUs = 1
