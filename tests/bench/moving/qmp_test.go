package moving

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// A QEMU that listens and says nothing isn't waited for without end.
func TestSilentQEMU(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := DialQMP(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
