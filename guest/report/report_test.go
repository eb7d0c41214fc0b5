package report

import (
	"reflect"
	"strings"
	"testing"
)

const console = "SeaBIOS\r\n" +
	"ebb: userspace 9.0\r\nebb: pattern FAILED: an earlier boot\r\n" +
	"ebb: userspace 0.812\r\n" +
	"ebb: kernel 6.1.0-56-cloud-amd64\r\n" +
	"[    1.0] noise about ebb: kernel 5\r\n" +
	"ebb: cpus 2\r\nebb: memory 511340544\r\n" +
	"ebb: disk vda serial=data0 size=67108864 ro=0 block=512 queues=2\r\n" +
	"ebb: disk vdb serial= size=512 ro=1 block=4096 queues=1\r\n" +
	"ebb: ioerror: vda read@0+512 EIO\r\nebb: ioerror ok\r\n" +
	"ebb: fio FAILED: vda: exit status 1\r\nebb: done FAILED: fio\r\n"

func TestParse(t *testing.T) {
	r := Parse(console)
	want := Report{
		Boots: 2, Userspace: 0.812, Kernel: "6.1.0-56-cloud-amd64", CPUs: 2, Memory: 511340544,
		Disks: []Disk{
			{Name: "vda", Serial: "data0", Size: 67108864, Block: 512, Queues: 2},
			{Name: "vdb", Size: 512, ReadOnly: true, Block: 4096, Queues: 1},
		},
		Results: []Result{{Name: "ioerror", OK: true}, {Name: "fio", Reason: "vda: exit status 1"}},
		Notes:   map[string][]string{"ioerror": {"vda read@0+512 EIO"}},
		Done:    &Result{Name: "done", Reason: "fio"},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
	for _, d := range want.Disks {
		if got := Parse(Prefix + d.String()).Disks; len(got) != 1 || got[0] != d {
			t.Errorf("%v came back as %v", d, got)
		}
	}
}

func TestErr(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "did not reach user space",
		"ebb: userspace 1\nebb: fio ok\n": "did not come to its end",
		"ebb: userspace 1\nebb: fio ok\nebb: done ok\n":    "",
		"ebb: userspace 1\nebb: done FAILED: init\n":       "init",
		"ebb: userspace 1\nebb: fio FAILED: why\n":         "fio failed in the guest: why",
		"ebb: userspace 1\nebb: done ok\nebb: userspace 2": "did not come to its end",
	} {
		err := Parse(text).Err()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
