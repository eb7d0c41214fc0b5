package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/ebb-vmm/ebb/cli"
	"github.com/ebb-vmm/ebb/guest"
	"github.com/ebb-vmm/ebb/tests/lab/lab"
)

const (
	// asEbb makes this test binary be ebb, so that tests run the real command
	// without building it again.
	asEbb = "EBB_TEST_AS_EBB"

	// imagesVar carries the built images into the lab, where nothing can be built.
	imagesVar = "EBB_TEST_IMAGES"
)

// images are the guests by kernel series: small ones, and such with the programs
// for the workloads fio and ext4, which need 768 MiB of memory.
var images struct{ Small, WithPrograms map[string]guest.Image }

func TestMain(m *testing.M) {
	if os.Getenv(asEbb) != "" {
		os.Exit(cli.Main(os.Args))
	}
	if err := findImages(); err != nil {
		lab.Skip("no guest images to test with: " + err.Error())
	}
	lab.Main(m, nil, lab.Options{MemoryMiB: 8192, Modules: []string{"null_blk nr_devices=0", "dm-mod", "veth"}})
}

// findImages builds the guests, or takes over those the process outside the lab
// has built.
func findImages() error {
	if v := os.Getenv(imagesVar); v != "" {
		return json.Unmarshal([]byte(v), &images)
	}
	images.Small, images.WithPrograms = map[string]guest.Image{}, map[string]guest.Image{}
	for _, series := range []string{"6.1", "6.12"} {
		small, err := guest.Build(context.Background(), guest.Spec{Series: series})
		if err != nil {
			return fmt.Errorf("Linux %s: %w", series, err)
		}
		big, err := guest.Build(context.Background(), guest.Spec{Series: series, Programs: []string{"mke2fs", "fio"}})
		if err != nil {
			return fmt.Errorf("Linux %s: %w", series, err)
		}
		images.Small[series], images.WithPrograms[series] = small, big
	}
	v, err := json.Marshal(images)
	if err != nil {
		return err
	}
	return os.Setenv(imagesVar, string(v))
}
