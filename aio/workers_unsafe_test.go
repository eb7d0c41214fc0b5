package aio

import (
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uffdioAPI and uffdioRegister are the structures of userfaultfd's ioctls.
type uffdioAPI struct{ api, features, ioctls uint64 }

type uffdioRegister struct{ start, length, mode, ioctls uint64 }

// blockingMemory returns memory whose every first use blocks whoever uses it, until let go.
func blockingMemory(t *testing.T, n int) (memory []byte, letGo func()) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		t.Skipf("no userfaultfd: %v", errno)
	}
	ioctl := func(request uintptr, arg unsafe.Pointer) {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg)); errno != 0 {
			t.Fatalf("userfaultfd: %v", errno)
		}
	}
	memory, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	must(t, err)
	const ioctlAPI, ioctlRegister = 0xc018aa3f, 0xc020aa00
	ioctl(ioctlAPI, unsafe.Pointer(&uffdioAPI{api: 0xaa}))
	ioctl(ioctlRegister, unsafe.Pointer(&uffdioRegister{
		start: uint64(uintptr(unsafe.Pointer(&memory[0]))), length: uint64(n), mode: 1 /* missing pages */}))
	return memory, sync.OnceFunc(func() { must(t, unix.Close(int(fd))) })
}

// Hundreds of requests of one disk block kernel threads: the flushes of another disk don't
// wait for them. With the kernel's own bound on its threads they would.
func TestBlockedDiskDoesNotDelayFlushes(t *testing.T) {
	eachEngine(t, testBlockedDiskDoesNotDelayFlushes)
}

func testBlockedDiskDoesNotDelayFlushes(t *testing.T, cfg Config) {
	// Before Linux 6.5 io_uring reads tmpfs on the thread that submits. O_DIRECT on tmpfs
	// came a version later.
	openFile(t, "/dev/shm", unix.O_DIRECT, 0)
	blocked := maxWorkers + 100 // more than there are threads
	if cfg.Engine > EngineThreads {
		blocked = 200 // giouring leaves them to the kernel, which doesn't share them out
	}
	memory, letGo := blockingMemory(t, blocked*4096)
	t.Cleanup(func() { must(t, unix.Munmap(memory)) })
	e := newTestEngine(t, cfg)
	slow, fast := newGuest(t), newGuest(t)
	// Here kernel threads carry out the reads, and then touch the memory.
	port(t, e, PortConfig{Name: "slow", FD: openFile(t, "/dev/shm", 0, 1<<20), Queues: []Queue{slow}, Demand: 2 * maxWorkers})
	port(t, e, PortConfig{Name: "fast", FD: openFile(t, "", 0, 1<<20), Queues: []Queue{fast}, Demand: 16})
	defer letGo()
	var calls []<-chan answer
	for i := range blocked {
		calls = append(calls, slow.start(rw(Read, 0, 0, memory[i*4096:(i+1)*4096])))
	}
	for range 20 {
		if a := fast.do(rw(Write, 0, 0, make([]byte, 4096))); a.err != 0 {
			t.Error(a)
		}
		if a := fast.do(ranged(Flush, 0, 0, 0)); a.err != 0 {
			t.Error(a)
		}
	}
	for _, call := range calls {
		select {
		case a := <-call:
			t.Fatalf("the slow disk answered: %v", a)
		default:
		}
	}
	letGo()
	for _, call := range calls {
		if a := await(t, deadline(t), call, "the slow disk"); a.err != 0 || a.n != 4096 {
			t.Error(a)
		}
	}
}
