package blk

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain also is the other process of TestLockAcrossProcesses.
func TestMain(m *testing.M) {
	if path := os.Getenv("EBB_TEST_HOLD_IMAGE"); path != "" {
		holdImage(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// holdImage opens an image, says so, and keeps it until standard input ends.
func holdImage(path string) {
	img, err := OpenImage(path, ImageOptions{ReadOnly: os.Getenv("EBB_TEST_HOLD_READONLY") != ""})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	os.Stdin.Read(make([]byte, 1)) //nolint:errcheck // its end is what is waited for
	img.Close()
}
