package machine

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

func TestMain(m *testing.M) {
	if lab.InLab() || lab.HasKVM() {
		goleak.VerifyTestMain(m) // ends the process
	}
	lab.Main(m, lab.HasKVM, lab.Options{})
}
