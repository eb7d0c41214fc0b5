package aio

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

// Every test runs with the engine's own checks on, but for those that count allocations.
func TestMain(m *testing.M) {
	if os.Getenv(refusedEnv) != "" {
		os.Exit(refusedMain())
	}
	if err := os.Setenv("EBB_CHECK", "1"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// deadline bounds a test that waits for another thread.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// await waits for a channel to be closed or to deliver.
func await[T any](t rapid.TB, ctx context.Context, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// tester is what test doubles need of a test, be it testing's or rapid's.
type tester interface {
	rapid.TB
	Cleanup(func())
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
