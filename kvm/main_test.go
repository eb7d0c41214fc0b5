package kvm

import (
	"testing"

	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

func TestMain(m *testing.M) { lab.Main(m, lab.HasKVM, lab.Options{}) }
