package tests

import (
	"fmt"
	"testing"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

// In the lab, where alone it was seen, a guest comes to a standstill now and then.
// The cause is not found, and ebb is not cleared (docs/lab.md). A test whose guest
// was killed by its deadline there is begun again, and says so; a second
// standstill fails it. Whatever else a guest does wrong fails at once.

// stuck is the panic that carries a standstill from where it is noticed to guestTest.
type stuck string

// guestTest runs the body of a test with guests in it.
func guestTest(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	why := attempt(t, body)
	if why == "" {
		return
	}
	fmt.Printf("%s: the guest came to a standstill in the lab; once more\n%s\n", t.Name(), why)
	if why := attempt(t, body); why != "" {
		t.Fatalf("a standstill for the second time: %s", why)
	}
}

// attempt returns why the body came to a standstill, if it did.
func attempt(t *testing.T, body func(t *testing.T)) (why stuck) {
	defer func() {
		if r := recover(); r != nil {
			var ok bool
			if why, ok = r.(stuck); !ok {
				panic(r)
			}
		}
	}()
	body(t)
	return ""
}

// standstill ends a test whose guest did not end in time. On the test's goroutine,
// within guestTest.
func standstill(t *testing.T, format string, args ...any) {
	t.Helper()
	if !lab.InLab() {
		t.Fatalf(format, args...)
	}
	panic(stuck(fmt.Sprintf(format, args...)))
}
