// Command ebb runs Linux guests on KVM. The commands are in package cli.
package main

import (
	"os"

	"github.com/ebb-vmm/ebb/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
