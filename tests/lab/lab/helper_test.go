package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// helperVariable makes this test binary do something else than testing, in a lab or beside one.
const helperVariable = "EBB_LAB_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperVariable) {
	case "":
		goleak.VerifyTestMain(m)
	case "describe":
		describe()
	case "interrupt":
		interrupt()
	case "launch":
		launch()
	}
}

// description is what a command finds in the lab.
type description struct {
	Host       string
	Dir        string
	Variable   string
	KVMVersion int
	Args       []string
}

// describe prints a description on stderr, copies stdin to stdout, and exits with 7.
func describe() {
	var d description
	d.Host, _ = os.Hostname()
	d.Dir, _ = os.Getwd()
	d.Variable = os.Getenv("EBB_LAB_TEST")
	d.Args = os.Args[1:]
	if kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		const getAPIVersion = 0xae00
		d.KVMVersion, _ = unix.IoctlRetInt(int(kvm.Fd()), getAPIVersion)
	}
	json.NewEncoder(os.Stderr).Encode(d)
	if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(7)
}

// interrupt prints the terminal's size and waits for the Ctrl-C of a person there.
func interrupt() {
	pressed := make(chan os.Signal, 1)
	signal.Notify(pressed, os.Interrupt)
	cols, rows, err := term.GetSize(0)
	fmt.Println("terminal", rows, cols, err)
	<-pressed
	os.Exit(3)
}

// launch runs a lab that does not end by itself, for a test that kills this process.
func launch() {
	Run(context.Background(), Options{}, []string{"sh", "-c", "echo running; exec sleep 1000"}, nil, os.Stdout, os.Stderr)
}
