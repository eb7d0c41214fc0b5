package lab

import (
	"fmt"
	"os"
	"testing"
)

// MustRunVariable, when set, makes Skip and SkipTest fail: where everything tests need was installed, nothing may be left out.
const MustRunVariable = "EBB_MUST_RUN"

// Skip ends a test binary whose tests can't run here, from TestMain. It says why. It does not return.
func Skip(reason string) {
	if os.Getenv(MustRunVariable) != "" {
		fmt.Println("FAIL: these tests must run:", reason)
		os.Exit(1)
	}
	fmt.Println("skipped:", reason)
	os.Exit(0)
}

// SkipTest skips one test for the lack of something that `make test` installs or the lab has.
func SkipTest(t testing.TB, reason ...any) {
	t.Helper()
	if os.Getenv(MustRunVariable) != "" {
		t.Fatal(append([]any{"this test must run:"}, reason...)...)
	}
	t.Skip(reason...)
}
